// Experts move for a gain that is worth it, or because they have to.
import type { Placement } from "@moevie/placement";
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
    held: current,
    rooms: [undefined, undefined],
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

test("over slots only copies help: shards that are even may hold a hot expert once", () => {
  const { slotsBefore, slotsAfter } = decided({});
  expect([slotsBefore, slotsAfter]).toEqual([0.55, 0.55]);
  // Two slots more: both hot experts have two copies, 5 each.
  expect(decided({ slots: 6 }).slotsAfter).toBeCloseTo(22 / 6 / 5, 12);
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
  const { placement, why } = decided({
    current: left,
    held: left,
    rooms: [undefined],
    loads: [new Float64Array(4)],
    mature: false,
    slots: 6,
  });
  expect(why).toBe("no shard holds expert 2 of layer 0");
  expect(placement?.shards.map(({ slots }) => new Set(slots.map(([, expert]) => expert)))).toEqual([
    new Set([0, 1, 2, 3]),
  ]);
});

const experts = ({ slots }: Placement["shards"][number]): number[] =>
  slots.map(([, expert]) => expert).sort((a, b) => a - b);
const lost = { epoch: 3, shards: [{ slots: [slot(0)] }, { slots: [slot(1)] }] };
const unknown = { current: lost, held: lost, loads: [new Float64Array(4)], mature: false };

test("what one shard has no room for another takes", () => {
  const { placement, unplaced } = decided({ ...unknown, rooms: [1, undefined] });
  expect(placement?.shards.map(experts)).toEqual([[0], [1, 2, 3]]);
  expect(unplaced).toEqual([]);
});

test("what nobody has room for is named, and nothing moves for it; what somebody has room for is had", () => {
  const some = decided({ ...unknown, rooms: [1, 2] });
  expect(some.placement?.shards.flatMap(experts)).toHaveLength(3);
  expect(some.unplaced).toHaveLength(1);
  const none = decided({ ...unknown, rooms: [1, 1] });
  expect(none).toMatchObject({ placement: undefined, unplaced: [slot(2), slot(3)] });
  expect(none.why).toBe("no shard holds expert 2 of layer 0, and none has room for it");
});

test("a gain that a shard has no room for is none", () => {
  expect(decided({ rooms: [3, 3] }).placement).toBeDefined();
  expect(decided({ rooms: [2, 2] })).toMatchObject({ placement: undefined, before: decided({}).before });
});
