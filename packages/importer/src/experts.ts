// Experts as graphs: one with its weights as inputs, several side by side over row segments, and a whole dropless layer.
// Every expert answers its rows by the same pair of Gemm nodes, so that an answer does not depend on which rows share a call.
import type { GateResult } from "./gate.ts";
import { GraphBuilder, type Name, type WeightSource } from "./graph-builder.ts";

/** Makes one expert's answer [n, d] to `rows` [n, d]. */
export type ExpertFunction = (rows: Name, expert: number) => Name;

export type ReluExpert = { readonly w1: Name; readonly b1: Name; readonly w2: Name; readonly b2: Name };

/** w2 relu(w1 x + b1) + b2, weights stored [out, in]. */
export function addReluExpert(g: GraphBuilder, rows: Name, expert: ReluExpert): Name {
  const hidden = g.op("Relu", [g.op("Gemm", [rows, expert.w1, expert.b1], { transB: { int: 1 } })]);
  return g.op("Gemm", [hidden, expert.w2, expert.b2], { transB: { int: 1 } });
}

/** down(silu(gate x) * (up x)), no biases, weights stored [out, in]. */
export function addGatedExpert(g: GraphBuilder, rows: Name, gate: Name, up: Name, down: Name): Name {
  const through = (value: Name, weight: Name): Name => g.op("Gemm", [value, weight], { transB: { int: 1 } });
  return through(g.mul(g.silu(through(rows, gate)), through(rows, up)), down);
}

/** Experts of `source` stored stacked under `prefix` as w1 [E, hidden, d], b1 [E, hidden], w2 [E, d, hidden], b2 [E, d]. */
export function stackedReluExperts(g: GraphBuilder, source: WeightSource, prefix: string): ExpertFunction {
  const slice = (name: string, expert: number): Name => g.weightSlice(source, `${prefix}.${name}`, expert);
  return (rows, expert) =>
    addReluExpert(g, rows, {
      w1: slice("w1", expert),
      b1: slice("b1", expert),
      w2: slice("w2", expert),
      b2: slice("b2", expert),
    });
}

/** `rows` [n, d], sorted into segments of `counts` [experts] rows, each through its own expert -> [n, d]. Segments may be empty. */
function addSegments(g: GraphBuilder, rows: Name, counts: Name, experts: number, expert: ExpertFunction): Name {
  if (experts === 1) return expert(rows, 0);
  const segments = g.nodes("Split", [rows, counts], experts, { axis: { int: 0 } });
  return g.concat(
    segments.map((segment, index) => expert(segment, index)),
    0,
  );
}

/**
 * A whole mixture-of-experts layer over `rows` [n, d] -> [n, d]: entries (row, choice) sorted by expert, one segment each,
 * back in order, weighted and summed. Dropless.
 */
export function addMoeLayer(
  g: GraphBuilder,
  rows: Name,
  gate: GateResult,
  sizes: { experts: number; topK: number; width: number },
  expert: ExpertFunction,
): Name {
  const ids = g.reshape(gate.ids, [-1]);
  const entries = g.op("Shape", [ids]);
  const index = g.op("Range", [g.i64(0), g.op("Squeeze", [entries]), g.i64(1)]);
  const keys = g.add(g.mul(ids, entries), index);
  const order = g.nodes("TopK", [keys, entries], 2, { axis: { int: 0 }, largest: { int: 0 }, sorted: { int: 1 } })[1]!;
  const every = g.i64s(Array.from({ length: sizes.experts }, (_, id) => id));
  const hits = g.op("Equal", [g.op("Unsqueeze", [ids, g.i64s([1])]), every]);
  const counts = g.op("ReduceSum", [g.op("Cast", [hits], { to: { int: 7 } }), g.i64s([0])], { keepdims: { int: 0 } });
  const sorted = g.op("Gather", [rows, g.op("Div", [order, g.i64(sizes.topK)])], { axis: { int: 0 } });
  const answers = addSegments(g, sorted, counts, sizes.experts, expert);
  const back = g.op("ScatterElements", [index, order, index], { axis: { int: 0 } });
  const inOrder = g.reshape(g.op("Gather", [answers, back], { axis: { int: 0 } }), [-1, sizes.topK, sizes.width]);
  const weighted = g.mul(inOrder, g.op("Unsqueeze", [gate.weights, g.i64s([2])]));
  return g.op("ReduceSum", [weighted, g.i64s([1])], { keepdims: { int: 0 } });
}

/** rows [n, d], w1 [hidden, d], b1, w2 [d, hidden], b2 -> y [n, d]. */
export function expertGraph(width: number, hidden: number): GraphBuilder {
  const g = new GraphBuilder("expert");
  const rows = g.input("rows", "f32", ["n", width]);
  const w1 = g.input("w1", "f32", [hidden, width]);
  const b1 = g.input("b1", "f32", [hidden]);
  const w2 = g.input("w2", "f32", [width, hidden]);
  const b2 = g.input("b2", "f32", [width]);
  g.output("y", addReluExpert(g, rows, { w1, b1, w2, b2 }), "f32", ["n", width]);
  return g;
}

/** Location that stands for weight `name` of slot `slot` until the bundle puts a real one there. */
function slotLocation(slot: number, name: string): string {
  return `slot/${slot}/${name}`;
}

/**
 * A pattern for the experts one shard holds of one layer: rows [n, d] in segments of counts i64 [slots] rows -> y [n, d].
 * Its weights are references to `slot/<slot>/<w1|b1|w2|b2>`, which are filled in for the experts at hand when it is loaded.
 */
export function expertSlotsGraph(slots: number, width: number, pattern: WeightSource, prefix: string): GraphBuilder {
  const g = new GraphBuilder(`experts.${slots}`);
  const rows = g.input("rows", "f32", ["n", width]);
  const counts = g.input("counts", "i64", [slots]);
  const weight = (slot: number, name: string): Name => {
    const { dtype, shape, length } = pattern.tensor(`${prefix}.${name}`);
    const one = {
      name: `slot.${slot}.${name}`,
      dtype,
      shape: shape.slice(1),
      offset: 0,
      length: length / shape[0]!,
      location: slotLocation(slot, name),
    };
    return g.weight({ tensor: () => one }, one.name);
  };
  const expert: ExpertFunction = (segment, slot) =>
    addReluExpert(g, segment, {
      w1: weight(slot, "w1"),
      b1: weight(slot, "b1"),
      w2: weight(slot, "w2"),
      b2: weight(slot, "b2"),
    });
  g.output("y", addSegments(g, rows, counts, slots, expert), "f32", ["n", width]);
  return g;
}
