// Which shard holds which experts of one layer: groups to nodes, copies to the experts of each node, copies to its shards; then as much of
// what lies there already is kept as balance allows. Pure.
import type { Bins } from "./bins.ts";
import { keepLayer } from "./keep-layer.ts";
import { countCopies } from "./measure.ts";
import { pack } from "./pack.ts";
import type { LayerShards, PlanShape } from "./plan-shape.ts";
import { replicate } from "./replicate.ts";

/** What the shards of one node are to hold. */
export interface NodePlan {
  /** One entry a copy: the experts of the node, then the further copies in the order they were made. */
  readonly copies: readonly number[];
  /** Load of one copy by expert, [experts]: copies share equally. */
  readonly shares: Float64Array;
  readonly bins: Bins;
}

/**
 * Places the experts of a layer by their loads [experts], as EPLB does (deepseek-ai/EPLB, eplb.py), but never two copies on one shard.
 * With `before`, the experts on each shard so far (any number of either), few experts are new to their shard, those that stay keep their
 * slots, and no shard carries more than the heaviest of the plan without `before`. shapeProblems must have nothing against the shape.
 */
export function planLayer(loads: Float64Array, shape: PlanShape, before?: LayerShards): LayerShards {
  const { slots, shards } = shape;
  // Groups that cannot be spread evenly are not kept together.
  const [groups, nodes] = shape.groups % shape.nodes === 0 ? [shape.groups, shape.nodes] : [1, 1];
  const plans = expertsByNode(loads, groups, nodes).map((experts) =>
    planNode(experts, loads, slots / nodes, shards / nodes),
  );
  if (before === undefined) return plans.flatMap(({ bins }) => bins.experts);
  const had = Array.from({ length: shards }, (_, shard) => before[shard] ?? []);
  return keepLayer(plans, had);
}

/** Packs groups by their load; a node's experts are those of its groups, in the order they were packed. */
function expertsByNode(loads: Float64Array, groups: number, nodes: number): number[][] {
  const size = loads.length / groups;
  const groupLoads = Float64Array.from({ length: groups }, (_, group) =>
    loads.subarray(group * size, (group + 1) * size).reduce((sum, load) => sum + load, 0),
  );
  const { experts: packed } = pack([...groupLoads.keys()], groupLoads, nodes);
  return packed.map((held) =>
    held.flatMap((group) => Array.from({ length: size }, (_, expert) => group * size + expert)),
  );
}

/** Where nothing is known of any expert, each counts the same: the copies of all would weigh nothing otherwise. */
function planNode(experts: readonly number[], loads: Float64Array, slots: number, shards: number): NodePlan {
  const known = experts.some((expert) => (loads[expert] ?? 0) > 0);
  const weights = known ? loads : new Float64Array(loads.length).fill(1);
  const copies = replicate(experts, weights, slots, shards);
  const counts = countCopies([copies], loads.length);
  const shares = weights.map((weight, expert) => weight / Math.max(1, counts[expert] ?? 0));
  return { copies, shares, bins: pack(copies, shares, shards) };
}
