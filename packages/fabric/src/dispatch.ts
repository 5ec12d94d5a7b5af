// Dispatch and combine: which rows go to which shard, and how weighted partial sums become one sum a row. Pure; the slow
// reference beside it (dispatch-reference.ts) says what both must do.
import type { ExpertRows } from "./body.ts";
import { exchangeError } from "./exchange-error.ts";

/** What one shard is asked: its rows (indices into the layer's rows, ascending) and its experts' entries over them. */
export interface ShardWork {
  readonly shard: number;
  /** [n]: each token row once, however many of its experts live on the shard. */
  readonly rows: Uint32Array;
  readonly csr: ExpertRows;
}

/** The gate's choice for one layer: `ids` and `weights` are [tokens, k]. */
export interface GateChoice {
  readonly ids: Int32Array;
  readonly weights: Float32Array;
  readonly k: number;
}

/** Where each of a layer's choices goes. */
export interface Assignment {
  /** The shard of each choice, [tokens · k]; negative: nobody is asked (a resend names only what was lost). */
  readonly shardOf: Int32Array;
  readonly experts: number;
  readonly shards: number;
}

/** Splits a layer's choices over the shards. Shards with nothing to do are not in the result, which is in ascending shard order. */
export function dispatch(choice: GateChoice, { shardOf, experts, shards }: Assignment): ShardWork[] {
  const { ids, weights, k } = choice;
  /** Choices of each expert at each shard, [shards · experts]; then where the next one goes in the shard's list. */
  const entries = new Uint32Array(shards * experts);
  const rows = new Uint32Array(shards);
  const lastToken = new Int32Array(shards).fill(-1);
  for (let at = 0; at < ids.length; at++) {
    const expert = ids[at] ?? -1;
    const shard = shardOf[at] ?? -1;
    if (expert < 0 || expert >= experts)
      throw exchangeError("INTERNAL", `the gate chose expert ${expert}, which does not exist`);
    if (shard < 0) continue;
    const token = Math.floor(at / k);
    entries[shard * experts + expert]!++;
    if (lastToken[shard] !== token) {
      lastToken[shard] = token;
      rows[shard]!++;
    }
  }
  const works = Array.from(rows, (count, shard) =>
    layOut(shard, count, entries.subarray(shard * experts, (shard + 1) * experts)),
  );
  lastToken.fill(-1);
  rows.fill(0);
  for (let at = 0; at < ids.length; at++) {
    const shard = shardOf[at] ?? -1;
    const work = works[shard];
    if (work === undefined) continue;
    const token = Math.floor(at / k);
    if (lastToken[shard] !== token) {
      lastToken[shard] = token;
      work.rows[rows[shard]!++] = token;
    }
    const entry = entries[shard * experts + (ids[at] ?? 0)]!++;
    work.csr.rowIndex[entry] = rows[shard]! - 1;
    work.csr.weights[entry] = weights[at] ?? 0;
  }
  return works.filter((work) => work !== undefined);
}

/** An empty work of `rows` rows with its offsets set, undefined where there is none; `counts` become where each expert's first entry goes. */
function layOut(shard: number, rows: number, counts: Uint32Array): ShardWork | undefined {
  if (rows === 0) return undefined;
  const local = Array.from(counts.keys()).filter((expert) => counts[expert]! > 0);
  const offsets = new Uint32Array(local.length + 1);
  local.forEach((expert, j) => {
    offsets[j + 1] = offsets[j]! + counts[expert]!;
    counts[expert] = offsets[j]!;
  });
  const entries = offsets[local.length]!;
  const csr: ExpertRows = {
    experts: Uint16Array.from(local),
    offsets,
    rowIndex: new Uint32Array(entries),
    weights: new Float32Array(entries),
  };
  return { shard, rows: new Uint32Array(rows), csr };
}

/** One shard's answer: `partial` [n, d] belongs to the rows `rows` [n] of the layer. */
export interface ShardPartial {
  readonly rows: Uint32Array;
  readonly partial: Float32Array;
}

/**
 * Adds the partial sums into `out` [tokens, d]; a token without one gets zeros. Parts are added in the order given: ascending
 * shard order makes a run repeat bit for bit.
 */
export function combine(parts: readonly ShardPartial[], d: number, out: Float32Array): void {
  const seen = new Uint8Array(out.length / d);
  for (const { rows, partial } of parts) {
    for (let row = 0; row < rows.length; row++) {
      const token = rows[row] as number;
      const to = token * d;
      const from = row * d;
      if (seen[token] === 0) {
        seen[token] = 1;
        for (let at = 0; at < d; at++) out[to + at] = partial[from + at] as number;
      } else {
        for (let at = 0; at < d; at++) out[to + at] = (out[to + at] as number) + (partial[from + at] as number);
      }
    }
  }
  seen.forEach((known, token) => {
    if (known === 0) out.fill(0, token * d, token * d + d);
  });
}

/**
 * What a shard does with its experts' answers: partial[rowIndex[e]] += weights[e] · answer of entry e, experts ascending,
 * each product rounded to f32 before it is added. The answers of local expert j lie together in `answers` [·, d], from
 * row starts[j] on, in CSR order (`csr.offsets` when nothing else lies between). Every row of `partial` [n, d] is written.
 */
export function weightedPartial(
  csr: ExpertRows,
  answers: Float32Array,
  starts: Uint32Array,
  d: number,
  partial: Float32Array,
): void {
  const seen = new Uint8Array(partial.length / d);
  for (let j = 0; j < csr.experts.length; j++) {
    const first = csr.offsets[j] as number;
    const last = csr.offsets[j + 1] as number;
    let from = (starts[j] as number) * d;
    for (let entry = first; entry < last; entry++) {
      const row = csr.rowIndex[entry] as number;
      const to = row * d;
      const weight = csr.weights[entry] as number;
      if (seen[row] === 0) {
        seen[row] = 1;
        // As 0 plus the product: a product of -0 gives 0.
        for (let at = 0; at < d; at++) partial[to + at] = Math.fround(weight * (answers[from + at] as number)) + 0;
      } else {
        for (let at = 0; at < d; at++)
          partial[to + at] = (partial[to + at] as number) + Math.fround(weight * (answers[from + at] as number));
      }
      from += d;
    }
  }
  seen.forEach((known, row) => {
    if (known === 0) partial.fill(0, row * d, row * d + d);
  });
}
