// What balancedness means, and what sharing by credits comes to.
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { balancedness, creditLoads, equalLoads, slotLoads } from "./measure.ts";

const sum = (values: Float64Array): number => values.reduce((total, value) => total + value, 0);
const near = (values: Float64Array): number[] => [...values].map((value) => Math.round(value * 1e6) / 1e6);

test("vLLM's vector: means and maxima are summed over layers before they are divided", () => {
  const layer = Float64Array.of(100, 0, 0, 0);
  expect(balancedness([layer, layer])).toBe(50 / 200);
  expect(balancedness([Float64Array.of(0, 0)])).toBe(1);
  expect(balancedness([Float64Array.of(5, 5), Float64Array.of(0, 0)])).toBe(1);
});

test("equal shares leave a shard with two halves heavy, credits fill up the light ones", () => {
  const shards = [
    [0, 1],
    [0, 2],
    [1, 2],
    [0, 3],
  ];
  const loads = Float64Array.of(90, 20, 10, 0);
  expect(near(equalLoads(shards, loads))).toEqual([40, 35, 15, 30]);
  expect(near(creditLoads(shards, loads))).toEqual([30, 30, 30, 30]);
});

test("a slot's load is its copy's share; a slot without a copy counts for nothing", () => {
  const shards = [[0, 1], [0, -1], [2]];
  const slots = slotLoads(shards, Float64Array.of(90, 20, 10));
  expect(near(slots)).toEqual([45, 20, 45, 10]);
  expect(balancedness([slots])).toBeCloseTo(30 / 45, 12);
});

test("sharing by credits loses no load, and its heaviest shard is no heavier than with equal shares", () => {
  const shards = fc.array(fc.uniqueArray(fc.nat(5), { minLength: 1 }), { minLength: 1, maxLength: 5 });
  fc.assert(
    fc.property(shards, fc.array(fc.nat(100), { minLength: 6, maxLength: 6 }), (held, drawn) => {
      const loads = Float64Array.from(drawn);
      const equal = equalLoads(held, loads);
      const credits = creditLoads(held, loads);
      expect(sum(credits)).toBeCloseTo(sum(equal), 6);
      expect(Math.max(...credits)).toBeLessThanOrEqual(Math.max(...equal) + 1e-9);
    }),
  );
});
