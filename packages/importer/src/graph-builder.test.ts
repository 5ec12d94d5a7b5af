// The graph language: weights are referenced once and in place, constants shared, the same graph always the same bytes.
import { expect, test } from "vitest";
import { GraphBuilder, type PlacedTensor, type WeightSource } from "./graph-builder.ts";

const stored = (name: string, shape: number[], length: number): PlacedTensor => ({
  name,
  dtype: "f16",
  shape,
  offset: 4096,
  length,
  location: "weights/model.safetensors",
});
const source: WeightSource = {
  tensor: (name) => (name === "small" ? stored(name, [2], 4) : stored(name, [4, 64], 512)),
  bytes: ({ length }) => new Uint8Array(length).fill(0xab),
};

test("a large weight is named by place, a tiny one is written into the graph", () => {
  const g = new GraphBuilder("g");
  const small = g.weight(source, "small");
  g.output("y", g.add(g.weight(source, "large"), small), "f32", [4, 64]);
  const text = Buffer.from(g.encode()).toString("latin1");
  expect(text).toContain("weights/model.safetensors");
  expect(text).toContain("4096");
  expect(text).toContain("\u00ab\u00ab\u00ab\u00ab");
  expect(text.match(/weights\/model\.safetensors/g)).toHaveLength(1);
});

test("a slice of a stacked weight lies where its entry does", () => {
  const g = new GraphBuilder("g");
  g.output("y", g.weightSlice(source, "large", 3), "f32", [64]);
  expect(Buffer.from(g.encode()).toString("latin1")).toContain(String(4096 + 3 * 128));
});

/** A small graph, made anew, checking that equal things are made once. */
const build = (): GraphBuilder => {
  const g = new GraphBuilder("g");
  expect(g.f32(1)).toBe(g.f32(1));
  expect(g.weight(source, "large")).toBe(g.weight(source, "large"));
  g.output("y", g.mul(g.input("x", "f32", ["n"]), g.f32(1)), "f32", ["n"]);
  return g;
};

test("the same calls give the same bytes, and equal constants are one", () => {
  expect(build().encode()).toEqual(build().encode());
});

test("an element type no graph can hold is refused by the tensor's name", () => {
  const g = new GraphBuilder("g");
  const odd: WeightSource = { tensor: (name) => ({ ...stored(name, [1], 1), dtype: "f8_e5m2" }) };
  expect(() => g.weight(odd, "scale")).toThrow("tensor scale: element type f8_e5m2 cannot be used in a graph");
});

test("a weight wanted in two types is referenced once and cast for the one it is not stored in", () => {
  const g = new GraphBuilder("g");
  const [half, wide] = [g.weight(source, "large", "f16"), g.weight(source, "large")];
  expect(half).toBe("large.stored");
  expect(wide).not.toBe(half);
  expect(g.weight(source, "large")).toBe(wide);
});
