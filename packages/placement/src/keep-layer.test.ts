// What keeping promises: nothing is less even for it, less moves, and what stays keeps its slot.
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { keepSlots } from "./keep-slots.ts";
import { countCopies, equalLoads } from "./measure.ts";
import { planLayer } from "./plan-layer.ts";
import type { LayerShards, PlanShape } from "./plan-shape.ts";

const isNew = (before: LayerShards, after: LayerShards): number =>
  after.reduce((sum, held, shard) => sum + held.filter((expert) => before[shard]?.includes(expert) !== true).length, 0);
const heaviest = (shards: LayerShards, loads: Float64Array): number => Math.max(...equalLoads(shards, loads));
const seeded = (seed: number) => {
  let state = seed;
  return (): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
};

test("vLLM's vector: a shard's experts stay the same, and those that stayed lie in their old slots", () => {
  const before = [0, 1, 2, 3, 4, 5, 6, 7];
  const after = [1, 5, 0, 4, 6, 2, 7, 3];
  expect(keepSlots(before.slice(0, 4), after.slice(0, 4))).toEqual([0, 1, 5, 4]);
  expect(keepSlots(before.slice(4), after.slice(4))).toEqual([2, 3, 6, 7]);
});

test("slots are kept where a shard has more or fewer of them than before", () => {
  expect(keepSlots([7, 8, 9], [9, 7])).toEqual([7, 9]);
  expect(keepSlots([], [3, 1])).toEqual([3, 1]);
  expect(keepSlots([5], [1, 5, 2])).toEqual([5, 1, 2]);
});

const shapes: fc.Arbitrary<PlanShape & { experts: number }> = fc
  .record({
    nodes: fc.integer({ min: 1, max: 3 }),
    shardsPerNode: fc.integer({ min: 1, max: 4 }),
    groupSize: fc.integer({ min: 1, max: 4 }),
    extra: fc.nat(1000),
  })
  .map(({ nodes, shardsPerNode, groupSize, extra }) => {
    const shards = nodes * shardsPerNode;
    const experts = 2 * nodes * groupSize;
    const least = Math.ceil(experts / shards);
    const perShard = least + (extra % (experts / nodes - least + 1));
    return { slots: perShard * shards, shards, groups: 2 * nodes, nodes, experts };
  });
const loadsOf = (experts: number): fc.Arbitrary<Float64Array> =>
  fc.array(fc.nat(1000), { minLength: experts, maxLength: experts }).map((loads) => Float64Array.from(loads));
const cases = shapes.chain((shape) => fc.tuple(fc.constant(shape), loadsOf(shape.experts), loadsOf(shape.experts)));

test("keeping costs no balance and moves no more than a plan that keeps nothing; all rules of a plan hold", () => {
  fc.assert(
    fc.property(cases, ([shape, old, loads]) => {
      const before = planLayer(old, shape);
      const fresh = planLayer(loads, shape);
      const kept = planLayer(loads, shape, before);
      expect(heaviest(kept, loads)).toBeLessThanOrEqual(heaviest(fresh, loads) * (1 + 1e-6));
      expect(isNew(before, kept)).toBeLessThanOrEqual(isNew(before, fresh));
      if (shape.nodes === 1) expect(countCopies(kept, shape.experts)).toEqual(countCopies(fresh, shape.experts));
      kept.forEach((held, shard) => {
        expect(held.length).toBe(shape.slots / shape.shards);
        expect(new Set(held).size).toBe(held.length);
        for (const expert of held) {
          const slot = before[shard]?.indexOf(expert) ?? -1;
          if (slot >= 0) expect(held[slot]).toBe(expert);
        }
      });
      expect(planLayer(loads, shape, before)).toEqual(kept);
    }),
    { numRuns: 500 },
  );
});

test("groups stay on one node each, and on theirs if that is as even", () => {
  fc.assert(
    fc.property(cases, ([shape, old, loads]) => {
      const kept = planLayer(loads, shape, planLayer(old, shape));
      const [perNode, size] = [shape.shards / shape.nodes, shape.experts / shape.groups];
      const nodes = new Map<number, Set<number>>();
      kept.forEach((held, shard) => {
        for (const expert of held) {
          const group = Math.floor(expert / size);
          nodes.set(group, (nodes.get(group) ?? new Set()).add(Math.floor(shard / perNode)));
        }
      });
      expect([...nodes.values()].every((each) => each.size === 1)).toBe(true);
    }),
  );
  const shape = { slots: 8, shards: 4, groups: 4, nodes: 2 };
  const before = planLayer(Float64Array.of(9, 9, 5, 5, 4, 4, 1, 1), shape);
  expect(planLayer(Float64Array.of(5, 5, 6, 6, 4, 4, 5, 5), shape, before)).toEqual(before);
});

test("nothing moves when nothing changed", () => {
  fc.assert(
    fc.property(cases, ([shape, loads]) => {
      const before = planLayer(loads, shape);
      expect(planLayer(loads, shape, before)).toEqual(before);
    }),
  );
});

test("shards and slots may come and go between two plans", () => {
  fc.assert(
    fc.property(cases, fc.integer({ min: 0, max: 5 }), ([shape, old, loads], cut) => {
      const before = planLayer(old, shape)
        .slice(0, shape.shards - Math.min(cut, shape.shards - 1))
        .map((held) => [...held, ...Array.from({ length: cut % 3 }, (_, i) => shape.experts + i)]);
      const kept = planLayer(loads, shape, before);
      for (const held of kept) expect(new Set(held).size).toBe(shape.slots / shape.shards);
      expect(heaviest(kept, loads)).toBeLessThanOrEqual(heaviest(planLayer(loads, shape), loads) * (1 + 1e-6));
    }),
  );
});

test("whole nodes change places rather than their experts", () => {
  const shape = { slots: 8, shards: 4, groups: 2, nodes: 2, experts: 8 };
  const before = planLayer(Float64Array.of(9, 9, 9, 9, 1, 1, 1, 1), shape);
  const turned = planLayer(Float64Array.of(1, 1, 1, 1, 9, 9, 9, 9), shape, before);
  expect(turned).toEqual(before);
});

test("loads that drift a little move a quarter of what a plan that keeps nothing moves", () => {
  const draw = seeded(1);
  const shape = { slots: 288, shards: 32, groups: 1, nodes: 1 };
  let [fresh, kept] = [0, 0];
  for (let layer = 0; layer < 8; layer++) {
    const old = Float64Array.from({ length: 256 }, () => (1000 * (draw() + 0.001) ** 2) / (0.02 + draw()));
    const loads = old.map((load) => load * (0.8 + 0.4 * draw()));
    const before = planLayer(old, shape);
    fresh += isNew(before, planLayer(loads, shape));
    kept += isNew(before, planLayer(loads, shape, before));
  }
  expect(kept).toBeLessThan(fresh / 4);
});
