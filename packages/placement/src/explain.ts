// A plan in words: why experts have the copies they have, how even it is, and what moves. Pure.
import { countCopies } from "./measure.ts";
import type { LayerPlan, PlacementPlan } from "./plan.ts";
import { isHierarchical, type PlanShape } from "./plan-shape.ts";
import { replicate } from "./replicate.ts";

/** Experts named in one sentence; of more, the number is said. */
const NAMED_MAX = 8;

/** The plan as a whole, a sentence or two a line. */
export function explainPlan(plan: PlacementPlan): string[] {
  const { shape, layers, balancedness } = plan;
  const experts = layers[0]?.loads.length ?? 0;
  const further = shape.slots - experts;
  const copies =
    further === 0
      ? `${shape.slots} slots a layer for ${experts} experts: one copy each.`
      : `${shape.slots} slots a layer for ${experts} experts: ${further === 1 ? "1 further copy" : `${further} further copies, each`} for the expert whose copies carry most then; no expert twice on one shard.`;
  const even = `Copies are counted on to share the rows of their expert equally: balancedness (mean over largest load of a shard) is ${shown(balancedness.equal)}, and ${shown(balancedness.bound)} at most under any placement. If rows go where credits are free it is ${shown(balancedness.credits)}.`;
  return [policy(shape, experts), copies, even, ...moved(plan)];
}

/** One layer, in a line. */
export function explainLayer(plan: PlacementPlan, index: number): string {
  const layer = plan.layers[index];
  if (layer === undefined) return "";
  if (layer.loads.every((load) => load === 0)) return "no load is known: every expert counts the same";
  const perExpert = shardsOfExpert(plan.shape);
  const byCopies = new Map<number, number[]>();
  layer.copies.forEach((count, expert) => {
    if (count > 1) byCopies.set(count, [...(byCopies.get(count) ?? []), expert]);
  });
  const parts = [...byCopies]
    .sort(([a], [b]) => b - a)
    .map(([count, experts]) => {
      const all = count === perExpert ? ", on every shard they may live on" : "";
      return `${count} copies of ${named(experts)}${all}`;
    });
  if (parts.length === 0) parts.push("one copy of each expert");
  return [...parts, ...heldBack(layer, plan.shape), ...passedOver(layer, plan.shape)].join("; ");
}

function policy(shape: PlanShape, experts: number): string {
  const { groups, nodes, shards } = shape;
  if (isHierarchical(shape))
    return `Hierarchical: ${groups} groups of ${experts / groups} experts stay together on ${nodes} nodes of ${shards / nodes} shards, and each node gives out its own slots.`;
  const whole = `Global: all ${shards} shards count alike, and groups are not kept together`;
  return nodes === 1 ? `${whole}.` : `${whole}: ${groups} groups cannot be spread evenly over ${nodes} nodes.`;
}

function moved({ layers, shape, balancedness }: PlacementPlan): string[] {
  if (balancedness.before === undefined) return [];
  const moves = layers.reduce((sum, layer) => sum + layer.moves.length, 0);
  const slots = layers.length * shape.slots;
  return [
    `${moves} of ${slots} slots get another expert; the placement so far has a balancedness of ${shown(balancedness.before)} under these loads.`,
  ];
}

/** Experts with fewer copies than their load alone would give them. */
function heldBack({ loads, copies }: LayerPlan, shape: PlanShape): string[] {
  if (isHierarchical(shape)) return [];
  const byLoad = countCopies([replicate([...loads.keys()], loads, shape.slots, shape.shards)], loads.length);
  const fewer = [...byLoad.keys()].filter((expert) => (copies[expert] ?? 0) < (byLoad[expert] ?? 0));
  if (fewer.length === 0) return [];
  return [`by load alone ${named(fewer)} would have more, but the shards that held several hot ones would carry most`];
}

/** What surprises about nodes: an expert that gets nothing more while a lighter one of another node does. */
function passedOver({ loads, copies, shards }: LayerPlan, shape: PlanShape): string[] {
  if (!isHierarchical(shape)) return [];
  const perNode = shardsOfExpert(shape);
  const nodeOf = new Int32Array(loads.length);
  shards.forEach((held, shard) => {
    for (const expert of held) nodeOf[expert] = Math.floor(shard / perNode);
  });
  let [heavy, most] = [-1, -1];
  let [light, least] = [-1, Infinity];
  loads.forEach((load, expert) => {
    const count = copies[expert] ?? 1;
    if (count < perNode && load / count > most) [heavy, most] = [expert, load / count];
    if (count > 1 && load / (count - 1) < least) [light, least] = [expert, load / (count - 1)];
  });
  if (heavy < 0 || light < 0 || most <= least || nodeOf[heavy] === nodeOf[light]) return [];
  return [
    `over all shards expert ${heavy} would have got the last copy of expert ${light}, but node ${nodeOf[light]} gives out its own slots`,
  ];
}

function shardsOfExpert(shape: PlanShape): number {
  return isHierarchical(shape) ? shape.shards / shape.nodes : shape.shards;
}

function named(experts: readonly number[]): string {
  if (experts.length === 1) return `expert ${experts[0]}`;
  const first = experts.slice(0, NAMED_MAX).join(", ");
  return experts.length <= NAMED_MAX ? `experts ${first}` : `${experts.length} experts, of them ${first}`;
}

function shown(balance: number): string {
  return balance.toFixed(4);
}
