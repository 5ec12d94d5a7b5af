// Dispatch, the shards' sums and combine together equal the slow reference, bit for bit, for any placement.
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { checkExpertRows } from "./body.ts";
import { combine, dispatch, weightedPartial } from "./dispatch.ts";
import { mixtureReference } from "./dispatch-reference.ts";

const d = 3;
const layerCase = fc
  .record({
    tokens: fc.integer({ min: 0, max: 30 }),
    k: fc.integer({ min: 1, max: 3 }),
    shards: fc.integer({ min: 1, max: 4 }),
    experts: fc.integer({ min: 3, max: 9 }),
  })
  .chain(({ tokens, k, shards, experts }) =>
    fc.record({
      k: fc.constant(k),
      shards: fc.constant(shards),
      experts: fc.constant(experts),
      // Any choice may go to any shard: experts have copies.
      shardOf: fc.array(fc.nat(shards - 1), { minLength: tokens * k, maxLength: tokens * k }),
      ids: fc.array(fc.uniqueArray(fc.nat(experts - 1), { minLength: k, maxLength: k }), {
        minLength: tokens,
        maxLength: tokens,
      }),
      seed: fc.nat(),
    }),
  );

/** An expert anyone can compute: value · (expert + 1.1) rounded to f32. */
function expertAnswer(expert: number, row: Float32Array): Float32Array {
  return row.map((value) => value * (expert + 1.1));
}

test("any routing over any shards gives the reference's bits, every row once a shard", () => {
  fc.assert(
    fc.property(layerCase, ({ k, shards, experts, shardOf: anywhere, ids, seed }) => {
      const tokens = ids.length;
      const rows = Float32Array.from({ length: tokens * d }, (_, at) => Math.sin(at * 7.3 + seed));
      const weights = Float32Array.from({ length: tokens * k }, (_, at) => Math.abs(Math.cos(at * 3.1 + seed)));
      const choice = { ids: Int32Array.from(ids.flat()), weights, k };
      const shardOf = Int32Array.from(anywhere);
      const works = dispatch(choice, { shardOf, experts, shards });
      const parts = works.map((work) => {
        checkExpertRows(work.csr, work.rows.length);
        expect(new Set(work.rows).size).toBe(work.rows.length);
        const answers = new Float32Array(work.csr.rowIndex.length * d);
        work.csr.experts.forEach((expert, j) => {
          for (let entry = work.csr.offsets[j] ?? 0; entry < (work.csr.offsets[j + 1] ?? 0); entry++) {
            const token = work.rows[work.csr.rowIndex[entry] ?? 0] ?? 0;
            answers.set(expertAnswer(expert, rows.subarray(token * d, token * d + d)), entry * d);
          }
        });
        const partial = new Float32Array(work.rows.length * d).fill(Number.NaN);
        weightedPartial(work.csr, answers, work.csr.offsets, d, partial);
        return { rows: work.rows, partial };
      });
      const out = new Float32Array(rows.length).fill(Number.NaN);
      combine(parts, d, out);
      expect(out).toEqual(mixtureReference(rows, d, choice, shardOf, expertAnswer));
    }),
  );
});

test("choices without a shard are left out and shards without work are not asked", () => {
  const choice = { ids: Int32Array.of(0, 1, 2, 0), weights: Float32Array.of(0.5, 0.5, 0.25, 0.75), k: 2 };
  const works = dispatch(choice, { shardOf: Int32Array.of(1, -1, -1, 1), experts: 3, shards: 3 });
  expect(works.map((work) => [work.shard, [...work.rows], [...work.csr.weights]])).toEqual([[1, [0, 1], [0.5, 0.75]]]);
});
