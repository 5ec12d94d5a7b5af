// The plan of a layer against published vectors (deepseek-ai/EPLB's README, vLLM's and TensorRT-LLM's tests), against the published
// algorithm written plainly, and against what every plan promises.
import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { rebalanceExperts, replicateExperts } from "./eplb.fixture.ts";
import { balancedness, countCopies, equalLoads, leastHeaviest, slotsByExpert } from "./measure.ts";
import { pack } from "./pack.ts";
import { planLayer } from "./plan-layer.ts";
import type { LayerShards, PlanShape } from "./plan-shape.ts";
import { replicate } from "./replicate.ts";

const w0 = [90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86];
const w1 = [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27];
const readme: PlanShape = { slots: 16, groups: 4, nodes: 2, shards: 8 };

function plan(loads: readonly number[], shape: PlanShape): LayerShards {
  return planLayer(Float64Array.from(loads), shape);
}

function shapeOf(slots: number, groups: number, nodes: number, shards: number): PlanShape {
  return { slots, groups, nodes, shards };
}

function byShard(slots: readonly number[], shards: number): number[][] {
  const size = slots.length / shards;
  return Array.from({ length: shards }, (_, shard) => slots.slice(shard * size, (shard + 1) * size));
}

function hasTwice(held: readonly number[]): boolean {
  return new Set(held).size < held.length;
}

function countsOf(copies: readonly number[], experts: number): number[] {
  return [...countCopies([copies], experts)];
}

describe("published vectors", () => {
  test.each([
    [w0, [5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1], [1, 2, 1, 1, 2, 2, 1, 1, 1, 1, 2, 1]],
    [w1, [7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1], [1, 2, 1, 1, 1, 2, 2, 1, 2, 1, 1, 1]],
  ])("EPLB's README: slots and copies, row %#", (loads, slots, copies) => {
    expect(plan(loads, readme).flat()).toEqual(slots);
    expect([...countCopies(plan(loads, readme), 12)]).toEqual(copies);
    expect(rebalanceExperts(loads, 16, 4, 2, 8)).toEqual(slots);
  });

  test("the loads that follow from it", () => {
    expect([...equalLoads(plan(w0, readme), Float64Array.from(w0))]).toEqual([
      121.5, 86.5, 125, 113, 147.5, 131.5, 156, 152,
    ]);
    expect([...equalLoads(plan(w1, readme), Float64Array.from(w1))]).toEqual([
      173, 179.5, 120.5, 172, 123, 152, 118.5, 117.5,
    ]);
  });

  test.each([
    [[1, 2, 3, 4], 4, [1, 1, 1, 1]],
    [[1, 4, 2, 1], 8, [1, 4, 2, 1]],
    [[10, 5, 2, 15, 8], 9, [2, 1, 1, 3, 2]],
    [[0, 10, 0], 4, [1, 2, 1]],
    [[0, 0, 0, 0], 6, [2, 2, 1, 1]],
  ])("TensorRT-LLM: copies for %j in %i slots are %j", (loads, slots, copies) => {
    const experts = [...loads.keys()];
    expect(countsOf(replicate(experts, Float64Array.from(loads), slots, slots), loads.length)).toEqual(copies);
  });

  test.each([
    [[1, 1, 1, 1], [1, 1, 1, 1], 2, 0.001],
    [[1, 3, 2, 1], [1, 2, 2, 1], 2, 0.01],
    [[10, 5, 2, 15, 8], [2, 1, 1, 3, 2], 3, 2],
    [[1, 100, 10], [1, 2, 1], 2, 9],
    [[2, 3, 4, 5, 6, 7], [1, 1, 1, 1, 1, 1], 2, 1],
  ])("TensorRT-LLM: %j in copies %j on %i shards differ by at most %f", (loads, counts, shards, most) => {
    const copies = [...loads.keys(), ...counts.flatMap((n, expert) => Array.from({ length: n - 1 }, () => expert))];
    const shares = Float64Array.from(loads, (load, expert) => load / (counts[expert] ?? 1));
    const bins = pack(copies, shares, shards);
    expect(Math.max(...bins.loads) - Math.min(...bins.loads)).toBeLessThanOrEqual(most);
    expect([...countCopies(bins.experts, loads.length)]).toEqual(counts);
    expect(bins.experts.some(hasTwice)).toBe(false);
  });

  test("vLLM: slots by expert, also where slots are empty", () => {
    expect(slotsByExpert([[0, 1, 2, 3, 0, 1]], 4)).toEqual([[0, 4], [1, 5], [2], [3]]);
    expect(slotsByExpert([[0, 2, 0, 1, 0, 3]], 4)).toEqual([[0, 2, 4], [3], [1], [5]]);
    expect(countsOf([0, 2, 0, 1, 0, 3], 4)).toEqual([3, 1, 1, 1]);
    expect(slotsByExpert([[0, 1, -1, 2, 3, -1]], 4)).toEqual([[0], [1], [3], [4]]);
    expect(slotsByExpert([[3, -1, 2, 1, 0, -1]], 4)).toEqual([[4], [3], [2], [0]]);
    expect(countsOf([3, -1, 2, 1, 0, -1], 4)).toEqual([1, 1, 1, 1]);
  });

  test("vLLM: equal loads, one shard, opposite layers, groups that do not fit", () => {
    expect(countsOf(plan(Array<number>(8).fill(50), shapeOf(8, 2, 2, 4)).flat(), 8)).toEqual(Array(8).fill(1));
    expect(new Set(plan([10, 20, 30, 40], shapeOf(4, 1, 1, 1)).flat())).toEqual(new Set([0, 1, 2, 3]));
    const fallback = shapeOf(8, 3, 2, 4);
    expect(plan([10, 20, 30, 40, 50, 60], fallback)).toEqual(plan([10, 20, 30, 40, 50, 60], shapeOf(8, 1, 1, 4)));
    expect(plan([10, 20, 30, 40], fallback).flat().length).toBe(8);
    for (const loads of [
      [200, 150, 100, 50, 25, 12],
      [12, 25, 50, 100, 150, 200],
    ])
      expect(countsOf(plan(loads, shapeOf(10, 3, 1, 2)).flat(), 6)[loads.indexOf(200)]).toBeGreaterThanOrEqual(2);
  });

  test("vLLM: the heaviest expert has the most copies; the published algorithm's third lies beside another", () => {
    const small = [100, 50, 200, 75, 150, 25, 300, 80];
    expect(countsOf(plan(small, shapeOf(12, 4, 2, 4)).flat(), 8)[6]).toBeGreaterThanOrEqual(2);
    const extreme = [1000, 1, 1, 1, 1, 1, 1, 1];
    const published = rebalanceExperts(extreme, 12, 2, 2, 4);
    expect(countsOf(published, 8)).toEqual([3, 1, 1, 1, 2, 2, 1, 1]);
    expect(published.slice(0, 6).filter((expert) => expert === 0).length).toBe(3);
    // Its node has two shards: two copies, and the slot that is left goes to the next.
    expect(plan(extreme, shapeOf(12, 2, 2, 4))).toEqual([
      [0, 2, 1],
      [0, 3, 1],
      [6, 4, 5],
      [7, 5, 4],
    ]);
  });

  test.each([
    [[100, 50, 200, 75, 150, 25, 300, 80], 12, 4, 2, 4, [6, 6, 7, 0, 6, 1, 2, 3, 4, 2, 4, 5]],
    [[10, 20, 30, 40, 50, 60], 8, 1, 1, 4, [3, 0, 2, 4, 5, 4, 5, 1]],
    [[200, 150, 100, 50, 25, 12], 10, 1, 1, 2, [1, 0, 0, 2, 5, 1, 0, 2, 3, 4]],
    [w0, 16, 1, 1, 8, [10, 6, 10, 7, 0, 2, 11, 4, 5, 9, 5, 4, 8, 3, 1, 1]],
    [w1, 16, 1, 1, 8, [1, 10, 2, 4, 5, 11, 5, 0, 6, 7, 6, 3, 8, 8, 9, 7]],
  ] as const)("the published algorithm, and the plan, which keeps copies apart: %j", (...vector) => {
    const [loads, slots, groups, nodes, shards, published] = vector;
    expect(rebalanceExperts(loads, slots, groups, nodes, shards)).toEqual(published);
    const planned = plan(loads, { slots, groups, nodes, shards });
    expect(planned.some(hasTwice)).toBe(false);
    if (!byShard(published, shards).some(hasTwice)) expect(planned.flat()).toEqual(published);
  });
});

/** Shapes with loads that fit them. */
const cases = fc
  .record({
    nodes: fc.integer({ min: 1, max: 3 }),
    shardsPerNode: fc.integer({ min: 1, max: 4 }),
    groupsPerNode: fc.integer({ min: 1, max: 3 }),
    groupSize: fc.integer({ min: 1, max: 4 }),
    extra: fc.nat(1000),
  })
  .chain(({ nodes, shardsPerNode, groupsPerNode, groupSize, extra }) => {
    const shards = nodes * shardsPerNode;
    const groups = nodes * groupsPerNode;
    const experts = groups * groupSize;
    const least = Math.ceil(experts / shards);
    const perShard = least + (extra % (experts / nodes - least + 1));
    const load = fc.oneof(fc.nat(3), fc.nat(1000), fc.double({ min: 1e-3, max: 1e6, noNaN: true }));
    return fc.record({
      shape: fc.constant({ slots: perShard * shards, shards, groups, nodes }),
      loads: fc.array(load, { minLength: experts, maxLength: experts }),
    });
  });

describe("every plan", () => {
  test("fills every slot, holds every expert, and no expert twice on a shard", () => {
    fc.assert(
      fc.property(cases, ({ shape, loads }) => {
        const shards = plan(loads, shape);
        expect(shards.length).toBe(shape.shards);
        for (const held of shards) {
          expect(held.length).toBe(shape.slots / shape.shards);
          expect(hasTwice(held)).toBe(false);
        }
        for (const copies of countCopies(shards, loads.length)) {
          expect(copies).toBeGreaterThanOrEqual(1);
          expect(copies).toBeLessThanOrEqual(shape.shards / shape.nodes);
        }
        const heaviest = Math.max(...equalLoads(shards, Float64Array.from(loads)));
        expect(heaviest).toBeGreaterThanOrEqual(leastHeaviest(Float64Array.from(loads), shape) * (1 - 1e-9));
      }),
      { numRuns: 500 },
    );
  });

  test("keeps the groups of a node together", () => {
    fc.assert(
      fc.property(cases, ({ shape, loads }) => {
        const perNode = shape.shards / shape.nodes;
        const size = loads.length / shape.groups;
        const nodeOf = new Map<number, number>();
        plan(loads, shape).forEach((held, shard) => {
          for (const expert of held) {
            const group = Math.floor(expert / size);
            const node = Math.floor(shard / perNode);
            expect(nodeOf.get(group) ?? node).toBe(node);
            nodeOf.set(group, node);
          }
        });
      }),
    );
  });

  test("is node by node the published algorithm's where that breaks no rule and every expert has load, or clearly more even", () => {
    let same = 0;
    fc.assert(
      fc.property(cases, ({ shape, loads: drawn }) => {
        const loads = drawn.map((load) => load + 1);
        const { slots, groups, nodes, shards } = shape;
        const published = byShard(rebalanceExperts(loads, slots, groups, nodes, shards), shards);
        const planned = plan(loads, shape);
        const heaviest = (all: LayerShards): number => Math.max(...equalLoads(all, Float64Array.from(loads)));
        for (let first = 0; first < shards; first += shards / nodes) {
          const [theirs, ours] = [published, planned].map((all) => all.slice(first, first + shards / nodes));
          if (theirs === undefined || ours === undefined || theirs.some(hasTwice)) continue;
          if (JSON.stringify(ours) === JSON.stringify(theirs)) same++;
          else expect(heaviest(ours)).toBeLessThan(heaviest(theirs) * 0.98);
        }
      }),
      { numRuns: 500 },
    );
    expect(same).toBeGreaterThan(200);
  });

  test("depends on nothing but its input, and on loads only in proportion", () => {
    fc.assert(
      fc.property(cases, fc.constantFrom(0.5, 2, 1024), ({ shape, loads }, factor) => {
        expect(plan(loads, shape)).toEqual(plan(loads, shape));
        expect(
          plan(
            loads.map((load) => load * factor),
            shape,
          ),
        ).toEqual(plan(loads, shape));
      }),
    );
  });

  test("is as even whatever the experts' numbers are, where no groups hold them together", () => {
    const distinct = fc.uniqueArray(fc.integer({ min: 1, max: 10_000 }), { minLength: 8, maxLength: 8 });
    fc.assert(
      fc.property(distinct, fc.array(fc.nat(), { minLength: 8, maxLength: 8 }), (loads, order) => {
        const turned = loads
          .map((load, expert) => ({ load, at: order[expert] ?? 0 }))
          .sort((a, b) => a.at - b.at)
          .map(({ load }) => load);
        expect(carriedByFour(turned)).toEqual(carriedByFour(loads));
      }),
    );
  });

  test("breaks ties by the lower expert: equal loads give copies in order, none at all the same", () => {
    fc.assert(
      fc.property(cases, fc.integer({ min: 1, max: 1000 }), ({ shape, loads }, load) => {
        const copiesOf = (each: number): Int32Array =>
          countCopies(planLayer(new Float64Array(loads.length).fill(each), shape), loads.length);
        const counts = copiesOf(load);
        expect(Math.max(...counts) - Math.min(...counts)).toBeLessThanOrEqual(1);
        expect(copiesOf(0).toSorted()).toEqual(counts.toSorted());
        if (shape.groups === 1) expect(counts).toEqual(counts.toSorted().toReversed());
      }),
    );
  });

  test("copies are the published algorithm's where no expert could live on too few shards", () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 1, max: 99 }), { minLength: 1, maxLength: 9 }),
        fc.nat(9),
        (loads, more) => {
          const slots = loads.length + more;
          const experts = [...loads.keys()];
          expect(replicate(experts, Float64Array.from(loads), slots, slots)).toEqual(replicateExperts(loads, slots));
        },
      ),
    );
  });
});

/** What four shards carry, lightest first. */
function carriedByFour(loads: readonly number[]): Float64Array {
  return equalLoads(plan(loads, shapeOf(8, 1, 1, 4)), Float64Array.from(loads)).toSorted();
}

/** 90 % of the load on the first `size` of 64 experts. */
function hot(size: number): number[] {
  return Array.from({ length: 64 }, (_, expert) => (expert < size ? 900 / size : 100 / (64 - size)));
}

function balanced(loads: readonly number[], shards: LayerShards): number {
  return balancedness([equalLoads(shards, Float64Array.from(loads))]);
}

describe("skewed loads on 64 experts, 72 slots", () => {
  const zipf = Array.from({ length: 64 }, (_, expert) => 1000 / (expert + 1));

  test.each([
    ["Zipf", zipf, 4],
    ["2 hot", hot(2), 4],
    ["4 hot", hot(4), 4],
    ["8 hot", hot(8), 4],
    ["Zipf", zipf, 8],
    ["2 hot", hot(2), 8],
    ["4 hot", hot(4), 8],
    ["8 hot", hot(8), 8],
  ])("%s on %3$i shards: balancedness of 0.95 or more, where the bound allows all", (_name, loads, shards) => {
    const shape = shapeOf(72, 1, 1, shards);
    const mean = loads.reduce((sum, load) => sum + load, 0) / shards;
    expect(leastHeaviest(Float64Array.from(loads), shape)).toBeCloseTo(mean, 6);
    expect(balanced(loads, plan(loads, shape))).toBeGreaterThanOrEqual(0.95);
  });

  test("two hot experts on eight shards: the published algorithm makes shards that hold both carry twice as much", () => {
    expect(balanced(hot(2), byShard(rebalanceExperts(hot(2), 72, 1, 1, 8), 8))).toBeLessThan(0.7);
    expect(balanced(hot(2), plan(hot(2), shapeOf(72, 1, 1, 8)))).toBeGreaterThan(0.99);
  });
});

test("noise-level experts are placed by the steps that they serve", () => {
  const copies = (shards: number): number[] => countsOf(plan([26, 14], shapeOf(shards, 1, 1, shards)).flat(), 2);
  expect([2, 3, 4, 5, 6, 8].map(copies)).toEqual([
    [1, 1],
    [2, 1],
    [2, 2],
    [3, 2],
    [4, 2],
    [5, 3],
  ]);
  expect(plan([26, 14], shapeOf(3, 1, 1, 3))).toEqual([[0], [1], [0]]);
  expect(plan([26, 14], shapeOf(2, 1, 1, 1))).toEqual([[0, 1]]);
});
