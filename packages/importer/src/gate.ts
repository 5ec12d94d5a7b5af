// The gate as a graph: which experts a row goes to, and with what weight. Always f32; equal scores go to the lower id, which
// TopK guarantees by its definition (as the ONNX operator specification says). Options are data, never another file.
import type { GraphBuilder, Name } from "./graph-builder.ts";

export type GateOptions = {
  readonly experts: number;
  readonly topK: number;
  readonly scores: "softmax" | "sigmoid";
  /** Divide the kept weights by their sum. */
  readonly renormalise: boolean;
  /** Groups of consecutive experts; 1 for none. Only experts of the `groupsKept` best groups may be chosen. */
  readonly groups: number;
  readonly groupsKept: number;
  /** Factor on the weights at the end. */
  readonly scale: number;
};

export type GateResult = {
  /** [rows, experts]. */
  readonly scores: Name;
  /** i64 [rows, topK], best first. */
  readonly ids: Name;
  /** [rows, topK]. */
  readonly weights: Name;
};

/** Keeps a division by a sum of sigmoids finite; far below any f32 score that matters. */
const SUM_EPSILON = 1e-20;
/** How many of a group's best scores make the group's score. */
const GROUP_SCORE_EXPERTS = 2;

function topK(g: GraphBuilder, values: Name, count: number): [Name, Name] {
  const [best, ids] = g.nodes("TopK", [values, g.i64s([count])], 2, {
    axis: { int: -1 },
    largest: { int: 1 },
    sorted: { int: 1 },
  });
  return [best!, ids!];
}

/** `choice` [rows, experts] with minus infinity outside the kept groups. */
function keepGroups(g: GraphBuilder, choice: Name, options: GateOptions): Name {
  const size = options.experts / options.groups;
  const grouped = g.reshape(choice, [-1, options.groups, size]);
  const [best] = topK(g, grouped, Math.min(GROUP_SCORE_EXPERTS, size));
  const groupScores = g.op("ReduceSum", [best, g.i64s([-1])], { keepdims: { int: 0 } });
  const [, kept] = topK(g, groupScores, options.groupsKept);
  const isKept = g.op("ReduceSum", [g.op("OneHot", [kept, g.i64(options.groups), g.f32s([0, 1])]), g.i64s([1])], {
    keepdims: { int: 0 },
  });
  const mask = g.op("Greater", [g.op("Unsqueeze", [isKept, g.i64s([2])]), g.f32(0.5)]);
  return g.reshape(g.op("Where", [mask, grouped, g.f32(-Infinity)]), [-1, options.experts]);
}

/**
 * Chooses experts from `logits` [rows, experts]. `selectionBias` [experts] moves the choice but not the weights.
 * A softmax without bias or groups is chosen by its logits: the same order, and ties stay exact whatever the runtime's exp does.
 */
export function addGate(g: GraphBuilder, logits: Name, options: GateOptions, selectionBias?: Name): GateResult {
  const scores =
    options.scores === "softmax" ? g.op("Softmax", [logits], { axis: { int: -1 } }) : g.op("Sigmoid", [logits]);
  let choice = options.scores === "softmax" && selectionBias === undefined && options.groups === 1 ? logits : scores;
  if (selectionBias !== undefined) choice = g.add(choice, selectionBias);
  if (options.groups > 1) choice = keepGroups(g, choice, options);
  const [, ids] = topK(g, choice, options.topK);
  let weights = g.op("GatherElements", [scores, ids], { axis: { int: -1 } });
  if (options.renormalise) {
    const sum = g.op("ReduceSum", [weights, g.i64s([-1])], { keepdims: { int: 1 } });
    weights = g.op("Div", [weights, g.add(sum, g.f32(SUM_EPSILON))]);
  }
  if (options.scale !== 1) weights = g.mul(weights, g.f32(options.scale));
  return { scores, ids, weights };
}
