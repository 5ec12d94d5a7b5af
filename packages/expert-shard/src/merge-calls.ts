// Lays out the rows of several calls for one run of a layer's graph: sorted by slot, calls behind each other inside a slot.
// Pure; what each call gets back does not depend on the others.
import type { ExpertRows } from "@moevie/fabric";

/** What the layout reads of a call. */
export interface LayerCall {
  readonly csr: ExpertRows;
  /** [n, d]. */
  readonly rows: Float32Array;
}

export interface MergedCalls {
  /** Rows per slot, [slots]. */
  readonly counts: BigInt64Array;
  /** For each call, where the rows of its j-th expert start. */
  readonly starts: readonly Uint32Array[];
  /** Rows in all. */
  readonly total: number;
}

/** Plans the layout for `experts`, the layer's slots in graph order. Every expert of every call must be among them. */
export function planMerge(calls: readonly LayerCall[], experts: Uint16Array): MergedCalls {
  const counts = new BigInt64Array(experts.length);
  const starts = calls.map((call) => new Uint32Array(call.csr.experts.length));
  const next = new Uint32Array(calls.length);
  let total = 0;
  experts.forEach((expert, slot) => {
    const before = total;
    calls.forEach(({ csr }, at) => {
      const j = next[at] ?? 0;
      if (csr.experts[j] !== expert) return;
      const start = starts[at];
      if (start !== undefined) start[j] = total;
      total += (csr.offsets[j + 1] ?? 0) - (csr.offsets[j] ?? 0);
      next[at] = j + 1;
    });
    counts[slot] = BigInt(total - before);
  });
  return { counts, starts, total };
}

/** Copies one call's rows to their places in `target` [total, d]; `starts` is the call's part of the plan. */
export function placeRows({ csr, rows }: LayerCall, starts: Uint32Array, d: number, target: Float32Array): void {
  for (let j = 0; j < csr.experts.length; j++) {
    let to = (starts[j] as number) * d;
    const last = csr.offsets[j + 1] as number;
    for (let entry = csr.offsets[j] as number; entry < last; entry++) {
      const from = (csr.rowIndex[entry] as number) * d;
      for (let at = 0; at < d; at++) target[to + at] = rows[from + at] as number;
      to += d;
    }
  }
}
