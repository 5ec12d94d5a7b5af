// What faults cost the clips that were made meanwhile, by kind of fault. A clip's time beyond that of a calm one is shared out equally among
// the faults that struck while it was made; what a fault cost is the largest share that any clip paid for it.
import type { Fault } from "./chaos-cluster.ts";

/** When a clip was asked for and when it was there, by `performance.now()`. */
export interface ClipTime {
  readonly fromMs: number;
  readonly toMs: number;
}

/** Milliseconds that faults of one kind cost. */
export interface FaultCost {
  readonly count: number;
  readonly medianMs: number;
  readonly worstMs: number;
}

/** By kind of fault, "any" for all of them; a fault that no clip met costs nothing. */
export function faultCosts(
  faults: readonly Fault[],
  clips: readonly ClipTime[],
  calmMs: number,
): Readonly<Record<string, FaultCost>> {
  const paid = faults.map(() => 0);
  for (const { fromMs, toMs } of clips) {
    const met = faults.flatMap(({ atMs }, at) => (atMs >= fromMs && atMs <= toMs ? [at] : []));
    const share = Math.max(0, toMs - fromMs - calmMs) / met.length;
    for (const at of met) paid[at] = Math.max(paid[at] ?? 0, share);
  }
  const kinds = ["any", ...new Set(faults.map(({ kind }) => kind))];
  return Object.fromEntries(
    kinds.map((kind) => {
      const costs = paid.filter((_, at) => kind === "any" || faults[at]?.kind === kind).sort((a, b) => a - b);
      const middle = costs[Math.floor(costs.length / 2)] ?? 0;
      return [kind, { count: costs.length, medianMs: Math.round(middle), worstMs: Math.round(costs.at(-1) ?? 0) }];
    }),
  );
}

/** One line: `KIND COUNT× MEDIAN/WORST ms`, the dearest kind first. */
export function shownCosts(costs: Readonly<Record<string, FaultCost>>): string {
  const entries = Object.entries(costs).sort(([, one], [, other]) => other.worstMs - one.worstMs);
  return entries
    .map(([kind, { count, medianMs, worstMs }]) => `${kind} ${count}× ${medianMs}/${worstMs} ms`)
    .join(", ");
}
