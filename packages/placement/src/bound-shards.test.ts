// A placement for shards without room for it all: no expert is lost while one of them has room, and none is asked for more than it can load.
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { boundShards } from "./bound-shards.ts";
import type { Placement } from "./placement.ts";

const placement = (...shards: number[][]): Placement => ({
  epoch: 1,
  shards: shards.map((experts) => ({ slots: experts.map((expert) => [0, expert] as const) })),
});
const experts = ({ shards }: Placement): number[][] => shards.map(({ slots }) => slots.map(([, expert]) => expert));
type Rooms = readonly (number | undefined)[];
const bound = (wanted: number[][], held: number[][], rooms: Rooms, loads: number[]): ReturnType<typeof boundShards> =>
  boundShards({
    wanted: placement(...wanted),
    held: placement(...held),
    rooms,
    loads: [Float64Array.from(loads)],
  });

test("without bounds it is the placement as it is", () => {
  const {
    placement: same,
    balancedness,
    unplaced,
  } = bound(
    [
      [3, 0],
      [1, 2],
    ],
    [[0], [1]],
    [undefined, undefined],
    [1, 1, 1, 1],
  );
  expect([experts(same), balancedness, unplaced]).toEqual([
    [
      [3, 0],
      [1, 2],
    ],
    1,
    [],
  ]);
});

test("what one has no room for goes to whom it weighs least, what is used most first; a copy more than one is left out", () => {
  // Shard 0 holds 0 and has room for one more: of 3, 4 and 5 the one that is used most. 4 lies on shard 1 as well, and is wanted no second time.
  const held = [[0], [1, 4], [2]];
  const { placement: same, unplaced } = bound(
    [[0, 3, 4, 5], [1, 4], [2]],
    held,
    [2, undefined, undefined],
    [1, 9, 1, 5, 1, 2],
  );
  expect([experts(same), unplaced]).toEqual([
    [
      [0, 3],
      [1, 4],
      [2, 5],
    ],
    [],
  ]);
});

test("one that cannot even load what would be left keeps all it holds; what was to leave it is there twice", () => {
  const { placement: same } = bound(
    [
      [0, 1],
      [2, 3],
    ],
    [[0, 1, 2], [3]],
    [1, undefined],
    [1, 1, 1, 1],
  );
  expect(experts(same)).toEqual([
    [0, 1, 2],
    [2, 3],
  ]);
});

test("an expert that was to move to a shard without room stays where it is", () => {
  const { placement: same, unplaced } = bound([[0], [1, 2]], [[0, 2], [1]], [undefined, 1], [1, 1, 1]);
  expect([experts(same), unplaced]).toEqual([[[0, 2], [1]], []]);
});

test("what nobody has room for is named", () => {
  const { placement: same, unplaced } = bound(
    [
      [0, 2],
      [1, 3],
    ],
    [[0], [1]],
    [1, 2],
    [1, 1, 1, 4],
  );
  expect([experts(same), unplaced]).toEqual([[[0], [1, 3]], [[0, 2]]]);
});

const EXPERTS = 8;
const some = fc.uniqueArray(fc.nat(EXPERTS - 1), { maxLength: EXPERTS });
const cases = fc.record({
  wanted: fc.array(some, { minLength: 1, maxLength: 4 }),
  held: fc.array(some, { minLength: 4, maxLength: 4 }),
  rooms: fc.array(fc.option(fc.nat(EXPERTS), { nil: undefined }), { minLength: 4, maxLength: 4 }),
  loads: fc.array(fc.nat(100), { minLength: EXPERTS, maxLength: EXPERTS }),
});

test("no shard is to load more than it has room for, no expert is lost that is held or has room anywhere, none lies twice on a shard", () => {
  fc.assert(
    fc.property(cases, ({ wanted, held, rooms, loads }) => {
      const had = held.slice(0, wanted.length);
      const { placement: same, unplaced } = bound(wanted, had, rooms, loads);
      const after = experts(same);
      after.forEach((target, shard) => {
        expect(new Set(target).size).toBe(target.length);
        const before = had[shard] ?? [];
        const both = new Set([...before, ...target]);
        const room = rooms[shard] ?? Infinity;
        // Copies are added first, then the others are taken away: either load has to fit, and what stays needs none.
        if (both.size > before.length) expect(both.size).toBeLessThanOrEqual(room);
        if (both.size > target.length) expect(target.length).toBeLessThanOrEqual(room);
      });
      const lost = wanted.flat().filter((expert) => !after.flat().includes(expert));
      expect(new Set(lost)).toEqual(new Set(unplaced.map(([, expert]) => expert)));
      for (const expert of lost) {
        expect(had.flat()).not.toContain(expert);
        after.forEach((target, shard) =>
          expect(new Set([...target, ...(had[shard] ?? [])]).size).toBeGreaterThanOrEqual(rooms[shard] ?? Infinity),
        );
      }
    }),
  );
});
