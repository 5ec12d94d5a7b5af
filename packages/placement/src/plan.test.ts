// A plan of several layers: sizes that do not fit are refused, it can be read back as a placement, and it says what it does.
import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  PlacementError,
  holdersOf,
  parseLoads,
  parsePlacement,
  placementOf,
  planPlacement,
  shapeProblems,
  uncovered,
  type PlanShape,
} from "./index.ts";
import { explainLayer, explainPlan } from "./explain.ts";
import { countCopies } from "./measure.ts";

const readme = [
  [90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86],
  [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27],
];
const shape: PlanShape = { slots: 16, shards: 8, groups: 4, nodes: 2 };

test("EPLB's README as a whole: loads by shard, balancedness over both layers", () => {
  const plan = planPlacement(parseLoads(readme), shape);
  expect(plan.layers.map(({ equal }) => Math.max(...equal))).toEqual([156, 179.5]);
  expect(plan.balancedness.equal).toBeCloseTo((129.125 + 144.5) / (156 + 179.5), 12);
  expect(plan.balancedness.bound).toBe(1);
  expect(plan.balancedness.before).toBeUndefined();
  // Sixteen slots a layer of 1033 and 1156; heaviest are a copy of expert 10, 183 / 2, and the only one of expert 7.
  expect(plan.balancedness.slots).toBeCloseTo((1033 / 16 + 1156 / 16) / (183 / 2 + 157), 12);
});

test("a plan is a placement that the next plan can keep", () => {
  const plan = planPlacement(parseLoads(readme), shape);
  const placement = placementOf(plan, 7);
  const model = { layers: 2, experts: 12 };
  expect(parsePlacement(JSON.parse(JSON.stringify(placement)), model)).toEqual(placement);
  const again = planPlacement(parseLoads(readme), shape, placement);
  expect(again.layers.map(({ shards }) => shards)).toEqual(plan.layers.map(({ shards }) => shards));
  expect(again.layers.flatMap(({ moves }) => moves)).toEqual([]);
  expect(again.balancedness.before).toBe(plan.balancedness.equal);
  expect(again.balancedness.slotsBefore).toBe(plan.balancedness.slots);
});

test("what moves is said slot by slot", () => {
  const placement = placementOf(
    planPlacement([Float64Array.of(4, 3, 2, 1)], { slots: 4, shards: 2, groups: 1, nodes: 1 }),
    1,
  );
  expect(placement.shards.map(({ slots }) => slots.map(([, expert]) => expert))).toEqual([
    [0, 3],
    [1, 2],
  ]);
  const one = { slots: 6, shards: 2, groups: 1, nodes: 1 };
  const next = planPlacement([Float64Array.of(1, 2, 3, 8)], one, placement);
  expect(next.layers[0]?.shards).toEqual([
    [0, 3, 2],
    [1, 2, 3],
  ]);
  expect(next.layers[0]?.moves).toEqual([
    { slot: 2, to: 2 },
    { slot: 5, to: 3 },
  ]);
  const swapped = planPlacement([Float64Array.of(8, 1, 1, 8)], { ...one, slots: 4 }, placement);
  expect(swapped.layers[0]?.moves.length).toBe(2);
  expect(swapped.layers[0]?.moves.every(({ from }) => from !== undefined)).toBe(true);
});

describe("sizes that do not fit", () => {
  test.each([
    [{ slots: 15 }, "slots", "a multiple of the 8 shards"],
    [{ slots: 8 }, "slots", "at least one for each of the 12 experts of a layer"],
    [{ slots: 56 }, "slots", "at most 48: 12 experts of at most 4 copies, one a shard it may live on"],
    [{ slots: 1e9 }, "slots", "a whole number from 1 to 4096"],
    [{ slots: Number.NaN }, "slots", "a whole number from 1 to 4096"],
    [{ shards: 0 }, "shards", "a whole number from 1 to 1024"],
    [{ shards: 1.5 }, "shards", "a whole number from 1 to 1024"],
    [{ groups: 13 }, "groups", "a whole number from 1 to the 12 experts of a layer"],
    [{ groups: 8 }, "groups", "a divisor of the 12 experts of a layer"],
    [{ nodes: 3 }, "nodes", "a divisor of the 8 shards"],
    [{ nodes: -1 }, "nodes", "a whole number from 1 to the number of shards"],
  ])("%j", (change, field, allowed) => {
    const [problem] = shapeProblems({ ...shape, ...change }, 2, 12);
    expect(problem).toMatchObject({ field, value: Object.values(change)[0] });
    expect(problem?.allowed).toContain(allowed);
    expect(() => planPlacement(parseLoads(readme), { ...shape, ...change })).toThrow(PlacementError);
  });

  test("many layers leave fewer slots for each", () => {
    expect(shapeProblems({ slots: 512, shards: 8, groups: 1, nodes: 1 }, 1024, 256)).toMatchObject([
      { field: "slots", allowed: "a whole number from 1 to 256 for 1024 layers" },
    ]);
  });

  test("groups that cannot be spread over nodes need not divide the experts", () => {
    expect(shapeProblems({ slots: 8, shards: 4, groups: 3, nodes: 2 }, 1, 4)).toEqual([]);
  });
});

describe("loads that cannot be read", () => {
  test.each([
    [3, "loads: is 3, must be a list"],
    [null, "loads: is null, must be a list"],
    [{ row: [] }, "rows: is missing, must be a list"],
    [{ rows: [[-1]] }, "rows[0][0]: is -1, must be a number from 0 to 9007199254740991"],
    [[], "loads: has 0 entries, must have at least 1"],
    [[[]], "loads[0]: has 0 entries, must have at least 1"],
    [[1, 2], "loads[0]: is 1, must be a list"],
    [[[1, -2]], "loads[0][1]: is -2, must be a number from 0 to 9007199254740991"],
    [[[1, null]], "loads[0][1]: is null, must be a number from 0 to 9007199254740991"],
    [[["1"]], 'loads[0][0]: is "1", must be a number from 0 to 9007199254740991'],
    [[[Number.NaN]], "loads[0][0]: is NaN, must be a number from 0 to 9007199254740991"],
    [[[1e300]], "loads[0][0]: is 1e+300, must be a number from 0 to 9007199254740991"],
    [[[1, 2], [3]], "loads[1]: has 1 entries, must have 2 as loads[0]"],
    [Array.from({ length: 1025 }, () => [1]), "loads: has 1025 entries, must have at most 1024"],
    [[Array(4097).fill(1)], "loads[0]: has 4097 entries, must have at most 4096"],
  ])("%#: %j", (value, message) => {
    expect(() => parseLoads(value)).toThrow(
      new PlacementError(message.split(": ")[0] ?? "", message.split(": ")[1] ?? ""),
    );
  });

  test("a router's answer is read as well", () => {
    expect(parseLoads({ rows: readme })).toEqual(parseLoads(readme));
  });
});

test("TensorRT-LLM's dead shard: its slots are out, what has another copy goes on, what has none is named", () => {
  const held = [
    [0, 1],
    [0, 2],
    [1, 3],
    [2, 3],
  ];
  const ready = [true, true, false, true];
  const masked = held.map((experts, shard) => (ready[shard] === true ? experts : experts.map(() => -1)));
  expect([...countCopies(masked, 4)]).toEqual([2, 1, 2, 1]);
  const shards = held.map((experts) => ({ slots: experts.map((expert) => [0, expert] as const) }));
  const holders = holdersOf(shards, ready, 0, 4);
  expect(holders.flat()).not.toContain(2);
  expect(holders).not.toContainEqual([]);
  const single = [0, 1, 2, 3].map((expert) => ({ slots: [[0, expert] as const] }));
  const left = single.filter((_, shard) => ready[shard]);
  expect(uncovered(left, { layers: 1, experts: 4 })).toEqual([[0, 2]]);
  expect(holdersOf(single, ready, 0, 4)[2]).toEqual([]);
});

describe("in words", () => {
  test("hierarchical", () => {
    const plan = planPlacement(parseLoads(readme), shape);
    const words = explainPlan(plan);
    expect(words[0]).toBe(
      "Hierarchical: 4 groups of 3 experts stay together on 2 nodes of 4 shards, and each node gives out its own slots.",
    );
    expect(words[1]).toContain("16 slots a layer for 12 experts: 4 further copies");
    expect(words[2]).toContain("equally: balancedness (mean over largest load of a shard) is 0.8156");
    expect(explainLayer(plan, 0)).toBe("2 copies of experts 1, 4, 5, 10");
  });

  test("an expert that nodes pass over is named", () => {
    const loads = [Float64Array.of(100, 90, 80, 70, 9, 8, 7, 6)];
    const plan = planPlacement(loads, { slots: 12, shards: 4, groups: 2, nodes: 2 });
    expect(explainLayer(plan, 0)).toBe(
      "2 copies of experts 0, 1, 4, 5, on every shard they may live on; over all shards expert 2 would have got the last copy of expert 5, but node 1 gives out its own slots",
    );
  });

  test("experts that are held back for balance are named", () => {
    const loads = [Float64Array.from({ length: 64 }, (_, expert) => (expert < 2 ? 450 : 100 / 62))];
    const plan = planPlacement(loads, { slots: 72, shards: 8, groups: 1, nodes: 1 });
    expect([...(plan.layers[0]?.copies.slice(0, 2) ?? [])]).toEqual([4, 4]);
    expect(explainLayer(plan, 0)).toContain(
      "4 copies of experts 0, 1; 2 copies of experts 2, 3; by load alone experts 0, 1 would have more, but the shards that held several hot ones would carry most",
    );
  });

  test("groups that are not kept together, loads that are not known, one copy each, what moves", () => {
    const flat = { slots: 4, shards: 4, groups: 3, nodes: 2 };
    const plan = planPlacement([new Float64Array(4)], flat);
    expect(explainPlan(plan)[0]).toBe(
      "Global: all 4 shards count alike, and groups are not kept together: 3 groups cannot be spread evenly over 2 nodes.",
    );
    expect(explainPlan(plan)[1]).toBe("4 slots a layer for 4 experts: one copy each.");
    expect(explainLayer(plan, 0)).toBe("no load is known: every expert counts the same");
    const kept = planPlacement([Float64Array.of(1, 2, 3, 4)], flat, placementOf(plan, 1));
    expect(explainLayer(kept, 0)).toBe("one copy of each expert");
    expect(explainPlan(kept).at(-1)).toBe(
      "0 of 4 slots get another expert; the placement so far has a balancedness of 0.6250 under these loads.",
    );
  });

  test("every plan has its words", () => {
    fc.assert(
      fc.property(fc.array(fc.nat(9), { minLength: 6, maxLength: 6 }), fc.constantFrom(6, 12), (drawn, slots) => {
        const plan = planPlacement([Float64Array.from(drawn)], { slots, shards: 6, groups: 2, nodes: 2 });
        expect(explainPlan(plan).join(" ")).not.toMatch(/NaN|undefined|Infinity/);
        expect(explainLayer(plan, 0)).not.toMatch(/NaN|undefined|Infinity/);
      }),
    );
  });
});
