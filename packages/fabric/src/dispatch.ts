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

/**
 * Splits a layer's choices over the shards. `holders[e]` is the shard that serves expert e; experts with a negative
 * holder are left out (a resend names only the lost ones). Shards with nothing to do are not in the result, which is
 * in ascending shard order.
 */
export function dispatch(choice: GateChoice, holders: Int32Array, shards: number): ShardWork[] {
  const { ids, weights, k } = choice;
  const perExpert = new Uint32Array(holders.length);
  const perShard = new Uint32Array(shards);
  const lastToken = new Int32Array(shards).fill(-1);
  for (let at = 0; at < ids.length; at++) {
    const expert = ids[at] ?? -1;
    const shard = holders[expert];
    if (shard === undefined) throw exchangeError("INTERNAL", `the gate chose expert ${expert}, which does not exist`);
    if (shard < 0) continue;
    const token = Math.floor(at / k);
    perExpert[expert] = (perExpert[expert] ?? 0) + 1;
    if (lastToken[shard] !== token) {
      lastToken[shard] = token;
      perShard[shard] = (perShard[shard] ?? 0) + 1;
    }
  }
  const plan = layOut(perExpert, perShard, holders);
  lastToken.fill(-1);
  const rowsFilled = new Uint32Array(shards);
  for (let at = 0; at < ids.length; at++) {
    const expert = ids[at] ?? 0;
    const shard = holders[expert] ?? -1;
    const work = plan.works[shard];
    if (work === undefined) continue;
    const token = Math.floor(at / k);
    if (lastToken[shard] !== token) {
      lastToken[shard] = token;
      work.rows[rowsFilled[shard] ?? 0] = token;
      rowsFilled[shard] = (rowsFilled[shard] ?? 0) + 1;
    }
    const entry = plan.cursor[expert] ?? 0;
    plan.cursor[expert] = entry + 1;
    work.csr.rowIndex[entry] = (rowsFilled[shard] ?? 1) - 1;
    work.csr.weights[entry] = weights[at] ?? 0;
  }
  return plan.works.filter((work) => work !== undefined);
}

/** Empty works with their offsets set; `cursor[e]` is where expert e's first entry goes in its shard's list. */
function layOut(
  perExpert: Uint32Array,
  perShard: Uint32Array,
  holders: Int32Array,
): { works: (ShardWork | undefined)[]; cursor: Uint32Array } {
  const cursor = new Uint32Array(holders.length);
  const local: number[][] = Array.from({ length: perShard.length }, () => []);
  for (let expert = 0; expert < holders.length; expert++) {
    if ((perExpert[expert] ?? 0) > 0) local[holders[expert] ?? -1]?.push(expert);
  }
  const works = local.map((experts, shard): ShardWork | undefined => {
    if (experts.length === 0) return undefined;
    const offsets = new Uint32Array(experts.length + 1);
    experts.forEach((expert, j) => {
      cursor[expert] = offsets[j] ?? 0;
      offsets[j + 1] = (offsets[j] ?? 0) + (perExpert[expert] ?? 0);
    });
    const entries = offsets[experts.length] ?? 0;
    const csr: ExpertRows = {
      experts: Uint16Array.from(experts),
      offsets,
      rowIndex: new Uint32Array(entries),
      weights: new Float32Array(entries),
    };
    return { shard, rows: new Uint32Array(perShard[shard] ?? 0), csr };
  });
  return { works, cursor };
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
