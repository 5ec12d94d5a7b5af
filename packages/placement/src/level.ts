// Exchanges copies between bins until the heaviest is light enough. Pure.
import { replace, type Bins } from "./bins.ts";
import type { LayerShards } from "./plan-shape.ts";

/** Sums of the same shares in another order differ by less than this part. */
export const ROUNDING = 1e-9;

interface Exchange {
  readonly bin: number;
  /** Rank in the heaviest bin of what it gives, and in the other of what it takes. */
  readonly given: number;
  readonly taken: number;
  /** Load of the heavier of both afterwards, or the goal if that is more. */
  readonly heavier: number;
  /** Experts that become new to their bin, less those that come back. */
  readonly moves: number;
}

/** The largest of values that are not negative. */
export function heaviest(values: Iterable<number>): number {
  let most = 0;
  for (const value of values) most = Math.max(most, value);
  return most;
}

/**
 * Exchanges one copy of the heaviest bin for a lighter one of another bin, again and again, until no bin is heavier than `goal` or
 * nothing helps; answers which. Of the exchanges that reach the goal the one is taken that moves least away from `had` [bins][any];
 * where none does, the one after which both bins are lightest.
 */
export function level(bins: Bins, shares: Float64Array, goal: number, had: LayerShards = []): boolean {
  // Every exchange makes the heaviest bin lighter and no other as heavy as it was, so this ends; the count is a belt to that brace.
  for (let left = bins.size * bins.experts.length; left > 0; left--) {
    const top = bins.loads.indexOf(heaviest(bins.loads));
    if ((bins.loads[top] ?? 0) <= goal * (1 + ROUNDING)) return true;
    const exchange = bestExchange(bins, top, shares, goal, had);
    if (exchange === undefined) return false;
    const taken = bins.experts[exchange.bin]?.[exchange.taken] ?? -1;
    const given = replace(bins, top, exchange.given, taken, shares);
    replace(bins, exchange.bin, exchange.taken, given, shares);
  }
  return false;
}

function bestExchange(
  { experts, loads }: Bins,
  top: number,
  shares: Float64Array,
  goal: number,
  had: LayerShards,
): Exchange | undefined {
  const mine = experts[top] ?? [];
  const load = loads[top] ?? 0;
  const isNew = (bin: number, expert: number): number => (had[bin]?.includes(expert) === true ? 0 : 1);
  let best: Exchange | undefined;
  experts.forEach((others, bin) => {
    if (bin === top) return;
    mine.forEach((expert, given) => {
      if (others.includes(expert)) return;
      others.forEach((other, taken) => {
        const less = (shares[expert] ?? 0) - (shares[other] ?? 0);
        const after = Math.max(load - less, (loads[bin] ?? 0) + less);
        if (after >= load * (1 - ROUNDING) || mine.includes(other)) return;
        const heavier = Math.max(after, goal);
        if (best !== undefined && heavier > best.heavier) return;
        const moves = isNew(top, other) + isNew(bin, expert) - isNew(top, expert) - isNew(bin, other);
        if (best === undefined || heavier < best.heavier || moves < best.moves)
          best = { bin, given, taken, heavier, moves };
      });
    });
  });
  return best;
}
