// A layer on its way: no expert is without a shard at any moment, in whichever order a stage's changes are made.
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { layerStages } from "./layer-stages.ts";

const EXPERTS = 6;
const some = fc.uniqueArray(fc.nat(EXPERTS - 1), { maxLength: EXPERTS });
/** Three shards that hold every expert between them. */
const placed = fc.tuple(some, some, some).map((shards) => {
  const missing = Array.from({ length: EXPERTS }, (_, expert) => expert).filter(
    (expert) => !shards.some((held) => held.includes(expert)),
  );
  return [[...shards[0], ...missing], shards[1], shards[2]];
});

test("every expert has a shard after every change, and the target is reached", () => {
  fc.assert(
    fc.property(placed, placed, fc.boolean(), (held, wanted, backwards) => {
      const now = held.map((experts) => [...experts]);
      for (const { changes } of layerStages(held, wanted)) {
        for (const { shard, experts } of backwards ? changes.toReversed() : changes) {
          now[shard] = [...experts];
          expect(new Set(now.flat()).size).toBe(EXPERTS);
        }
      }
      expect(now.map((experts) => new Set(experts))).toEqual(wanted.map((experts) => new Set(experts)));
    }),
  );
});

test("what is there already takes no stage; a shard that only gains has its target after the first", () => {
  expect(layerStages([[1, 0], [2]], [[0, 1], [2]])).toEqual([]);
  expect(layerStages([[0, 1], [2]], [[0], [1, 2]])).toEqual([
    { kind: "adding", changes: [{ shard: 1, experts: [1, 2] }] },
    { kind: "removing", changes: [{ shard: 0, experts: [0] }] },
  ]);
});
