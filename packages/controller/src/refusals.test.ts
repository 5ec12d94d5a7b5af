// What shards refused: how much less is asked of them, and when it is forgotten.
import { MoevieError } from "@moevie/contracts";
import { expect, test } from "vitest";
import type { RebalanceFailure } from "./rebalance.ts";
import { Refusals } from "./refusals.ts";

const MINUTE = 60_000;
const full = (neededBytes: number, freeBytes: number): MoevieError =>
  new MoevieError("OUT_OF_MEMORY", "no room", { memory: { neededBytes, freeBytes } });
const failure = (error: MoevieError, asked: number[], held: number[]): RebalanceFailure => ({
  error,
  layer: 1,
  member: 0,
  asked,
  held,
});
/** Shard 3 with so many experts over all its layers. */
const shard = (slots: number, freeBytes: number, fence = 2) => ({
  index: 3,
  holdings: {
    experts: Array.from({ length: slots }, (_, slot) => ({ layer: 0, expert: slot, slot })),
    freeBytes,
    fence,
  },
});
const kept = (loadsWhole: boolean, of: RebalanceFailure): { refusals: Refusals; isLess: boolean } => {
  const refusals = new Refusals(loadsWhole);
  return { refusals, isLess: refusals.add(shard(6, 300), of, 2, 1000) };
};

test("the bytes say for how many of a layer there is room: for all of it, or for those that come, as its experts are loaded", () => {
  const refused = failure(full(800, 350), [0, 1, 2, 3, 4, 5, 6, 7], [0, 1]);
  expect(kept(true, refused).refusals.room(3)).toBe(3);
  expect(kept(false, refused).refusals.room(3)).toBe(4);
  expect(kept(true, refused).refusals.room(2)).toBeUndefined();
});

test("without bytes half as many more are asked for, and at last none more", () => {
  const unknown = new MoevieError("OUT_OF_MEMORY", "The device has no room.");
  const rooms = [8, 5, 3].map((count) =>
    kept(
      true,
      failure(
        unknown,
        Array.from({ length: count }, (_, at) => at),
        [0, 1],
      ),
    ).refusals.room(3),
  );
  expect(rooms).toEqual([5, 3, 2]);
});

test("a shard that cannot read its files is asked for nothing new; what passes by itself is not kept", () => {
  const corrupt = kept(true, failure(new MoevieError("BUNDLE_CORRUPT", "cut short"), [0, 1], [0]));
  expect([corrupt.refusals.room(3), corrupt.isLess]).toEqual([0, true]);
  for (const reason of ["PEER_UNAVAILABLE", "DEADLINE", "STALE_PLACEMENT", "DRAINING", "CANCELLED"] as const) {
    const passing = kept(true, failure(new MoevieError(reason, "later"), [0, 1], [0]));
    expect([passing.refusals.room(3), passing.isLess]).toEqual([undefined, false]);
  }
});

test("one that cannot give up an expert is not asked again at once", () => {
  expect(kept(true, failure(full(200, 100), [0, 1], [0, 1, 2])).isLess).toBe(false);
});

test("it is forgotten when there is room for what was refused, when the shard was started again, or after minutes", () => {
  const refused = failure(full(800, 300), [0, 1, 2, 3], [0]);
  const after = (...looks: Parameters<Refusals["look"]>[]): number | undefined => {
    const { refusals } = kept(true, refused);
    for (const look of looks) refusals.look(...look);
    return refusals.room(3);
  };
  expect(after([[shard(6, 799)], 20_000])).toBe(1);
  expect(after([[shard(5, 799)], 20_000])).toBe(1);
  expect(after([[shard(6, 800)], 20_000])).toBeUndefined();
  // What is free comes and goes.
  expect(after([[shard(6, 800)], 2000])).toBe(1);
  expect(after([[shard(6, 300, 0)], 2000])).toBeUndefined();
  expect(after([[], 1000 + 5 * MINUTE - 1])).toBe(1);
  expect(after([[], 1000 + 5 * MINUTE])).toBeUndefined();
});

test("where no bytes were named, a shard that gave up experts may be asked again", () => {
  const { refusals } = kept(true, failure(new MoevieError("OUT_OF_MEMORY", "full"), [0, 1, 2, 3], [0]));
  refusals.look([shard(6, Infinity)], 20_000);
  expect(refusals.room(3)).toBe(2);
  refusals.look([shard(5, 0)], 20_000);
  expect(refusals.room(3)).toBeUndefined();
});

test("what is shown names shard, layer, numbers, why and since when", () => {
  const { refusals } = kept(true, failure(full(800, 300), [0, 1, 2, 3], [0]));
  expect(refusals.shown(3500)).toEqual([{ shard: 3, layer: 1, asked: 4, room: 1, why: "no room", ageMs: 2500 }]);
});
