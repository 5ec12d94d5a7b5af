// Which shard holds which experts of one layer: groups to nodes, copies to the experts of each node, copies to its shards; then as much of
// what lies there already is kept as balance allows. Pure.
import type { Bins } from "./bins.ts";
import { keepLayer } from "./keep-layer.ts";
import { heaviest } from "./level.ts";
import { countCopies } from "./measure.ts";
import { pack } from "./pack.ts";
import type { LayerShards, PlanShape } from "./plan-shape.ts";
import { replicate } from "./replicate.ts";

/** Part of the best thinkable balance that is good enough to leave EPLB's copies as they are. */
const EVEN_ENOUGH = 0.9;
/** A plan is only given up for one whose heaviest shard carries less than this part. */
const WORTH_IT = 0.98;
/** Of many limits to the copies of an expert, one in this many is tried. */
const LIMITS_SKIPPED = 8;

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

/**
 * EPLB's copies, unless they leave the shards clearly uneven: a shard that two hot experts share carries more than one that has a single
 * copy more of either would. Then fewer copies an expert are tried, too.
 */
function planNode(experts: readonly number[], loads: Float64Array, slots: number, shards: number): NodePlan {
  // Where nothing is known of any expert, each counts the same: copies would weigh nothing otherwise.
  const known = experts.some((expert) => (loads[expert] ?? 0) > 0);
  const weights = known ? loads : new Float64Array(loads.length).fill(1);
  const published = packCopies(replicate(experts, weights, slots, shards), weights, shards);
  const mean = published.bins.loads.reduce((sum, load) => sum + load, 0) / shards;
  const largestShare = experts.reduce((most, expert) => Math.max(most, published.shares[expert] ?? 0), 0);
  const goal = Math.max(mean, largestShare) / EVEN_ENOUGH;
  const most = heaviest(countCopies([published.copies], loads.length));
  let best = published;
  for (let limit = most - 1; limit * experts.length >= slots; limit -= Math.ceil(limit / LIMITS_SKIPPED)) {
    if (heaviest(best.bins.loads) <= goal) break;
    const fewer = packCopies(replicate(experts, weights, slots, limit), weights, shards);
    if (heaviest(fewer.bins.loads) < heaviest(best.bins.loads) * WORTH_IT) best = fewer;
  }
  return best;
}

function packCopies(copies: readonly number[], weights: Float64Array, shards: number): NodePlan {
  const counts = countCopies([copies], weights.length);
  const shares = weights.map((weight, expert) => weight / Math.max(1, counts[expert] ?? 0));
  return { copies, shares, bins: pack(copies, shares, shards) };
}
