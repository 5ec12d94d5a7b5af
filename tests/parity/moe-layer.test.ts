// Gate and expert graphs against recorded PyTorch layers: every gate option, shared experts, exact ties, empty experts.
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import {
  addGate,
  addGatedExpert,
  addMoeLayer,
  addReluExpert,
  GraphBuilder,
  openWeightFile,
  type GateOptions,
  type Weights,
} from "@moevie/importer";
import { readTensors, type Dense } from "./safetensors-file.ts";
import { createSession, f32, largestDifference } from "./sessions.ts";

const SCORES = 3e-6;
const OUTPUT = 3e-5;
const folder = join(import.meta.dirname, "moe-layer");
const cases = readdirSync(folder, { withFileTypes: true }).flatMap((entry) =>
  entry.isDirectory() ? [entry.name] : [],
);

function gateOptions(name: string, experts: number, topK: number): GateOptions {
  const plain = { experts, topK, groups: 1, groupsKept: 1, scale: 1 };
  if (name.startsWith("relu")) return { ...plain, scores: "softmax", renormalise: true };
  if (name.startsWith("softmax")) return { ...plain, scores: "softmax", renormalise: false };
  return { experts, topK, scores: "sigmoid", renormalise: true, groups: 4, groupsKept: 2, scale: 2.5 };
}

function layerGraph(name: string, weights: Weights, width: number, experts: number, topK: number): GraphBuilder {
  const g = new GraphBuilder(name);
  const relu = name.startsWith("relu");
  const rows = g.input("rows", "f32", ["n", width]);
  const logits = g.gemm(weights, "gate", rows, relu);
  const bias = name.startsWith("sigmoid") ? g.weight(weights, "gate.correction_bias") : undefined;
  const gate = addGate(g, logits, gateOptions(name, experts, topK), bias);
  const slice = (part: string, expert: number): string => g.weightSlice(weights, `experts.${part}`, expert);
  const moe = addMoeLayer(g, rows, gate, { experts, topK, width }, (segment, e) =>
    relu
      ? addReluExpert(g, segment, { w1: slice("w1", e), b1: slice("b1", e), w2: slice("w2", e), b2: slice("b2", e) })
      : addGatedExpert(g, segment, slice("gate_proj", e), slice("up_proj", e), slice("down_proj", e)),
  );
  const shared = (part: string): string => g.weight(weights, `shared.${part}`);
  const all = relu
    ? moe
    : g.add(moe, addGatedExpert(g, rows, shared("gate_proj"), shared("up_proj"), shared("down_proj")));
  g.output("logits", logits, "f32", ["n", experts]);
  g.output("scores", gate.scores, "f32", ["n", experts]);
  g.output("ids", gate.ids, "i64", ["n", topK]);
  g.output("weights", gate.weights, "f32", ["n", topK]);
  g.output("routed", moe, "f32", ["n", width]);
  g.output("all", all, "f32", ["n", width]);
  return g;
}

describe.each(cases)("%s", (name) => {
  test("ids are the recorded ones, ties to the lower; scores, weights and output agree", async () => {
    const want = readTensors(join(folder, name, "io.safetensors"));
    const file = join(folder, name, "weights.safetensors");
    const weights = await openWeightFile(file, file.slice(1));
    const get = (key: string): Dense => want.get(key)!;
    const [width, experts, topK] = [get("input").shape.at(-1)!, get("logits").shape[1]!, get("ids").shape[1]!];
    const session = await createSession(layerGraph(name, weights, width, experts, topK).encode());
    const input = get("input").data;
    const got = await session.run({ rows: f32([input.length / width, width], input) });
    const data = (key: string): Float32Array => got[key]!.data as Float32Array;
    const ids = Array.from(got["ids"]!.data as BigInt64Array, Number);
    expect(ids).toEqual([...get("ids").data]);
    expect(get("tokens_per_expert").data.length).toBe(experts);
    for (const [id, tokens] of get("tokens_per_expert").data.entries())
      expect(ids.filter((chosen) => chosen === id)).toHaveLength(tokens);
    expect(largestDifference(data("logits"), get("logits").data)).toBeLessThan(SCORES * 10);
    expect(largestDifference(data("scores"), get("scores").data)).toBeLessThan(SCORES);
    expect(largestDifference(data("weights"), get("weights").data)).toBeLessThan(SCORES);
    expect(largestDifference(data("all"), get("output").data)).toBeLessThan(OUTPUT);
    if (want.has("routed_output"))
      expect(largestDifference(data("routed"), get("routed_output").data)).toBeLessThan(OUTPUT);
  });
});

test("equal logits tie in every lane of the vector unit, softmax and sigmoid alike", async () => {
  for (const scores of ["softmax", "sigmoid"] as const) {
    const g = new GraphBuilder("ties");
    const gate = addGate(g, g.input("logits", "f32", ["n", 37]), {
      experts: 37,
      topK: 37,
      scores,
      renormalise: true,
      groups: 1,
      groupsKept: 1,
      scale: 1,
    });
    g.output("ids", gate.ids, "i64", ["n", 37]);
    const session = await createSession(g.encode());
    const values = Float32Array.from({ length: 8 * 37 }, (_, i) => -3.3 + Math.floor(i / 37) * 0.917);
    const ids = (await session.run({ logits: f32([8, 37], values) }))["ids"]!.data as BigInt64Array;
    expect(Array.from(ids, Number)).toEqual(Array.from({ length: 8 * 37 }, (_, i) => i % 37));
  }
});

test("without ties the runtime's own operator, gate and experts together, gives the same layer", async () => {
  const name = "relu_e8_d32";
  const want = readTensors(join(folder, name, "io.safetensors"));
  const file = join(folder, name, "weights.safetensors");
  const weights = await openWeightFile(file, file.slice(1));
  const g = new GraphBuilder(name);
  const rows = g.input("rows", "f32", ["n", 32]);
  const stacked = ["w1", "b1", "w2", "b2"].map((part) => g.weight(weights, `experts.${part}`));
  const options = { k: { int: 2 }, activation_type: { text: "relu" }, normalize_routing_weights: { int: 1 } };
  g.output("y", g.fused("MoE", [rows, g.gemm(weights, "gate", rows, true), ...stacked], options), "f32", ["n", 32]);
  const session = await createSession(g.encode());
  const got = (await session.run({ rows: f32([24, 32], want.get("input")!.data) }))["y"]!;
  expect(largestDifference(got.data as Float32Array, want.get("output")!.data)).toBeLessThan(OUTPUT);
});
