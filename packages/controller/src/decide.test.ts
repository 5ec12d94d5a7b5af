// Experts move for a gain that is worth it, or because they have to.
import { expect, test } from "vitest";
import { decide } from "./decide.ts";
import type { Situation } from "./decide.ts";

const model = { layers: 1, experts: 4 };
const slot = (expert: number): readonly [number, number] => [0, expert];
const current = { epoch: 3, shards: [{ slots: [0, 1].map(slot) }, { slots: [2, 3].map(slot) }] };
const decided = (changes: Partial<Situation>): ReturnType<typeof decide> =>
  decide({
    model,
    loads: [Float64Array.of(10, 10, 1, 1)],
    current,
    slots: 4,
    gainMin: 0.1,
    mature: true,
    ...changes,
  });

test("a gain that is worth it moves experts, under the next epoch", () => {
  const { placement, before, after } = decided({});
  expect([before.toFixed(2), after]).toEqual(["0.55", 1]);
  expect(placement?.epoch).toBe(4);
  expect(placement?.shards.map(({ slots }) => slots.length)).toEqual([2, 2]);
});

test("nothing moves for less, before its time, or when no load is known", () => {
  expect(decided({ gainMin: 0.5 })).toMatchObject({
    placement: undefined,
    why: expect.stringContaining("less than") as string,
  });
  expect(decided({ mature: false })).toMatchObject({
    placement: undefined,
    why: expect.stringContaining("old enough") as string,
  });
  expect(decided({ loads: [new Float64Array(4)] })).toMatchObject({ placement: undefined, why: "no load is known" });
});

test("an expert without a shard moves whatever the loads and ages; shards that are left take all", () => {
  const left = { epoch: 3, shards: [current.shards[0]!] };
  const { placement, why } = decided({ current: left, loads: [new Float64Array(4)], mature: false, slots: 6 });
  expect(why).toBe("no shard holds expert 2 of layer 0");
  expect(placement?.shards.map(({ slots }) => new Set(slots.map(([, expert]) => expert)))).toEqual([
    new Set([0, 1, 2, 3]),
  ]);
});
