// Merging calls for one run: sorted by slot, and each call gets back exactly what it would have got alone.
import * as fc from "fast-check";
import { dispatch, weightedPartial } from "@moevie/fabric";
import { expect, test } from "vitest";
import { placeRows, planMerge } from "./merge-calls.ts";
import type { LayerCall } from "./merge-calls.ts";

const d = 2;
const slots = Uint16Array.of(1, 4, 6, 7);
const callCase = fc.array(fc.uniqueArray(fc.constantFrom(...slots), { minLength: 2, maxLength: 2 }), {
  minLength: 1,
  maxLength: 6,
});

function callOf(ids: readonly number[][], seed: number): LayerCall {
  const choice = { ids: Int32Array.from(ids.flat()), weights: new Float32Array(ids.length * 2).fill(0.25), k: 2 };
  const csr = dispatch(choice, { shardOf: new Int32Array(choice.ids.length), experts: 8, shards: 1 })[0]?.csr;
  if (csr === undefined) throw new Error("a call without entries");
  return { csr, rows: Float32Array.from({ length: ids.length * d }, (_, at) => Math.sin(at + seed)) };
}

/** The graph's stand-in: each slot multiplies by its expert id. Returns answers and each call's weighted sums. */
function run(calls: readonly LayerCall[]): Float32Array[] {
  const plan = planMerge(calls, slots);
  const rows = new Float32Array(plan.total * d).fill(Number.NaN);
  calls.forEach((call, at) => placeRows(call, plan.starts[at] as Uint32Array, d, rows));
  expect(rows).not.toContain(Number.NaN);
  const expertOfRow = [...slots].flatMap((expert, slot) =>
    Array.from({ length: Number(plan.counts[slot]) }, () => expert),
  );
  expect(expertOfRow).toHaveLength(plan.total);
  const answers = rows.map((value, at) => value * (expertOfRow[Math.floor(at / d)] ?? 0));
  return calls.map((call, at) => {
    const partial = new Float32Array(call.rows.length);
    weightedPartial(call.csr, answers, plan.starts[at] as Uint32Array, d, partial);
    return partial;
  });
}

test("any calls merged give each the bits it gets alone", () => {
  fc.assert(
    fc.property(fc.array(callCase, { minLength: 1, maxLength: 4 }), (ids) => {
      const calls = ids.map((choice, at) => callOf(choice, at));
      expect(run(calls)).toEqual(calls.map((call) => run([call])[0]));
    }),
  );
});
