// The slow, obvious statement of what dispatch, the shards and combine do together. Only tests use it.
import type { GateChoice } from "./dispatch.ts";

/**
 * out[token] = Σ over shards ascending of (Σ over the token's experts on that shard, ascending, of weight · answer),
 * every product and sum rounded to f32. `answer(expert, row)` is the expert applied to a row [d].
 */
export function mixtureReference(
  rows: Float32Array,
  d: number,
  choice: GateChoice,
  shardOf: Int32Array,
  answer: (expert: number, row: Float32Array) => Float32Array,
): Float32Array {
  const out = new Float32Array(rows.length);
  for (let token = 0; token < rows.length / d; token++) {
    const row = rows.subarray(token * d, token * d + d);
    const chosen = Array.from({ length: choice.k }, (_, j) => ({
      expert: choice.ids[token * choice.k + j] ?? 0,
      weight: choice.weights[token * choice.k + j] ?? 0,
      shard: shardOf[token * choice.k + j] ?? -1,
    }));
    for (const shard of [...new Set(chosen.map((each) => each.shard))].sort((a, b) => a - b)) {
      const partial = new Float32Array(d);
      const local = chosen.filter((each) => each.shard === shard);
      for (const { expert, weight } of local.sort((a, b) => a.expert - b.expert)) {
        const value = answer(expert, row);
        for (let at = 0; at < d; at++) partial[at] = (partial[at] ?? 0) + Math.fround(weight * (value[at] ?? 0));
      }
      for (let at = 0; at < d; at++) out[token * d + at] = (out[token * d + at] ?? 0) + (partial[at] ?? 0);
    }
  }
  return out;
}
