// What a placement promises: cover, balance, clear refusals, and the same choice of holders everywhere.
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { PlacementError, holdersOf, parsePlacement, spread, uncovered } from "./index.ts";

const sizes = fc.record({
  layers: fc.integer({ min: 1, max: 9 }),
  experts: fc.integer({ min: 1, max: 20 }),
  shards: fc.integer({ min: 1, max: 7 }),
});

test("spread holds every expert exactly once and differs by at most one slot per layer", () => {
  fc.assert(
    fc.property(sizes, ({ layers, experts, shards }) => {
      const placement = spread(layers, experts, shards);
      expect(uncovered(placement.shards, { layers, experts })).toEqual([]);
      expect(placement.shards.reduce((sum, shard) => sum + shard.slots.length, 0)).toBe(layers * experts);
      for (let layer = 0; layer < layers; layer++) {
        const counts = placement.shards.map((shard) => shard.slots.filter(([at]) => at === layer).length);
        expect(Math.max(...counts) - Math.min(...counts)).toBeLessThanOrEqual(1);
      }
    }),
  );
});

test("a placement written as JSON reads back the same", () => {
  const placement = spread(3, 5, 2);
  expect(parsePlacement(JSON.parse(JSON.stringify(placement)), { layers: 3, experts: 5 })).toEqual(placement);
});

test("a bad placement names the field", () => {
  const model = { layers: 1, experts: 2 };
  const refuse = (value: unknown): string => {
    try {
      parsePlacement(value, model);
    } catch (error) {
      expect(error).toBeInstanceOf(PlacementError);
      return (error as PlacementError).message;
    }
    return "accepted";
  };
  expect(refuse(null)).toBe("placement: is null, must be an object");
  expect(refuse({ epoch: 0, shards: [] })).toBe("epoch: is 0, must be a whole number from 1 to 9007199254740991");
  expect(refuse({ epoch: 1, shards: [{ slots: [[0]] }] })).toBe(
    "shards[0].slots[0][1]: is missing, must be a whole number from 0 to 1",
  );
  expect(refuse({ epoch: 1, shards: [{ slots: [[0, 1, 2]] }] })).toBe(
    "shards[0].slots[0]: has 3 entries, must have at most 2",
  );
  expect(refuse({ epoch: 1, shards: "two" })).toBe('shards: is "two", must be a list');
  expect(refuse({ epoch: 1, shards: [{ slots: [[0, 0]] }] })).toBe("shards: no shard holds expert 1 of layer 0");
  expect(refuse({ epoch: 1, shards: [{ slots: [[0, 2]] }] })).toBe(
    "shards[0].slots[0][1]: is 2, must be a whole number from 0 to 1",
  );
  expect(
    refuse({
      epoch: 1,
      shards: [
        {
          slots: [
            [0, 0],
            [0, 0],
          ],
        },
      ],
    }),
  ).toBe("shards[0].slots[1]: expert 0 of layer 0 is already on this shard");
});

test("holders are ready shards that hold the expert, shared out evenly", () => {
  const shards = [
    {
      slots: [
        [0, 0],
        [0, 1],
      ] as const,
    },
    {
      slots: [
        [0, 0],
        [0, 1],
        [0, 2],
      ] as const,
    },
  ];
  expect(holdersOf(shards, [true, true], 0, 4)).toEqual([[0, 1], [0, 1], [1], []]);
  expect(holdersOf(shards, [false, true], 0, 3)).toEqual([[1], [1], [1]]);
  expect(holdersOf(shards, [true, false], 0, 3)).toEqual([[0], [0], []]);
});
