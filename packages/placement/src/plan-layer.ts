// Which shard holds which experts of one layer: groups to nodes, copies to the experts of each node, copies to its shards; then as much of
// what lies there already is kept as balance allows. Pure.
import { keepBins, keepLayer } from "./keep-layer.ts";
import { ROUNDING, heaviest } from "./level.ts";
import { equalLoads } from "./measure.ts";
import { pack } from "./pack.ts";
import { planNode, shardsOf, type NodePlan } from "./plan-node.ts";
import type { LayerShards, PlanShape } from "./plan-shape.ts";

/**
 * Places the experts of a layer by their loads [experts], as EPLB does (deepseek-ai/EPLB, eplb.py), but never two copies on one shard.
 * With `before`, the experts on each shard so far (any number of either), few experts are new to their shard, those that stay keep their
 * slots, and no shard carries more than the heaviest of the plan without `before`. shapeProblems must have nothing against the shape.
 */
export function planLayer(loads: Float64Array, shape: PlanShape, before?: LayerShards): LayerShards {
  const { slots, shards } = shape;
  // Groups that cannot be spread evenly are not kept together.
  const [groups, nodes] = shape.groups % shape.nodes === 0 ? [shape.groups, shape.nodes] : [1, 1];
  const size = loads.length / groups;
  const plansOf = (groupsByNode: LayerShards): NodePlan[] =>
    groupsByNode.map((held) => planNode(expertsOf(held, size), loads, slots / nodes, shards / nodes));
  const packed = packGroups(loads, groups, nodes);
  const fresh = plansOf(packed.bins.experts);
  if (before === undefined) return shardsOf(fresh);
  const had = Array.from({ length: shards }, (_, shard) => before[shard] ?? []);
  if (nodes === 1) return keepLayer([fresh], had);
  const staying = plansOf(keepBins(packed, groupsByNode(had, size, nodes)));
  const [most, mostFresh] = [staying, fresh].map((plans) => heaviest(equalLoads(shardsOf(plans), loads)));
  const asEven = (most ?? 0) <= (mostFresh ?? 0) * (1 + ROUNDING);
  return keepLayer(asEven ? [fresh, staying] : [fresh], had);
}

/** Groups on nodes by their load. */
function packGroups(loads: Float64Array, groups: number, nodes: number): NodePlan {
  const size = loads.length / groups;
  const shares = Float64Array.from({ length: groups }, (_, group) =>
    loads.subarray(group * size, (group + 1) * size).reduce((sum, load) => sum + load, 0),
  );
  const copies = [...shares.keys()];
  return { copies, shares, bins: pack(copies, shares, nodes) };
}

/** Groups of which a node has anything, [nodes][any]. */
function groupsByNode(had: LayerShards, size: number, nodes: number): number[][] {
  const perNode = had.length / nodes;
  return Array.from({ length: nodes }, (_, node) => {
    const experts = had.slice(node * perNode, (node + 1) * perNode).flat();
    return [...new Set(experts.map((expert) => Math.floor(expert / size)))];
  });
}

/** The experts of groups of `size`, in the groups' order. */
function expertsOf(groups: readonly number[], size: number): number[] {
  return groups.flatMap((group) => Array.from({ length: size }, (_, expert) => group * size + expert));
}
