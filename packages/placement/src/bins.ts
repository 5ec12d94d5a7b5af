// Bins of equal size and the copies of experts in them, no expert twice in a bin. Pure.

/** Bins of `size` places. `experts[b]` are those in bin b, by rank; `loads[b]` is the sum of their shares. */
export interface Bins {
  readonly size: number;
  readonly experts: number[][];
  readonly loads: Float64Array;
}

export function emptyBins(count: number, size: number): Bins {
  return { size, experts: Array.from({ length: count }, () => []), loads: new Float64Array(count) };
}

/**
 * Puts `copies` (experts, one entry a copy) into bins that have a place for each: by falling share, equal ones in the order given, into
 * the lightest bin that has room, the lowest of several. `shares[e]` is the load of one copy of expert e. A bin that has the expert is
 * passed over, unless `twice`. No expert may have more copies than there are bins.
 */
export function fill(bins: Bins, copies: readonly number[], shares: Float64Array, twice = false): void {
  const heaviestFirst = [...copies].sort((a, b) => (shares[b] ?? 0) - (shares[a] ?? 0));
  for (const expert of heaviestFirst) {
    const bin = lightest(bins, (held) => held.length < bins.size && (twice || !held.includes(expert)));
    if (bin >= 0) put(bins, bin, expert, shares);
    else makeRoom(bins, expert, shares);
  }
}

export function put(bins: Bins, bin: number, expert: number, shares: Float64Array): void {
  bins.experts[bin]?.push(expert);
  bins.loads[bin] = (bins.loads[bin] ?? 0) + (shares[expert] ?? 0);
}

/** The lightest bin that `allows`, the lowest of several; -1 when there is none. */
function lightest({ experts, loads }: Bins, allows: (held: readonly number[]) => boolean): number {
  let best = -1;
  for (let bin = 0; bin < experts.length; bin++) {
    const lighter = best < 0 || (loads[bin] ?? 0) < (loads[best] ?? 0);
    if (lighter && allows(experts[bin] ?? [])) best = bin;
  }
  return best;
}

/**
 * Every bin with room has the expert already: a full bin takes it and gives one of its own to a bin with room. That is always possible:
 * some bin lacks the expert, is therefore full, and has at least two which the other lacks. Of all such exchanges, the one after which
 * the heavier of the two bins is lightest.
 */
function makeRoom(bins: Bins, expert: number, shares: Float64Array): void {
  const open = lightest(bins, (held) => held.length < bins.size);
  const share = shares[expert] ?? 0;
  let [from, rank, least] = [-1, -1, Infinity];
  bins.experts.forEach((held, bin) => {
    if (held.includes(expert)) return;
    held.forEach((other, at) => {
      if (bins.experts[open]?.includes(other) === true) return;
      const moved = shares[other] ?? 0;
      const heavier = Math.max((bins.loads[open] ?? 0) + moved, (bins.loads[bin] ?? 0) - moved + share);
      if (heavier < least) [from, rank, least] = [bin, at, heavier];
    });
  });
  const given = replace(bins, from, rank, expert, shares);
  put(bins, open, given, shares);
}

/** Puts `expert` in the place of another, which is answered. */
export function replace(bins: Bins, bin: number, rank: number, expert: number, shares: Float64Array): number {
  const held = bins.experts[bin] ?? [];
  const given = held[rank] ?? -1;
  held[rank] = expert;
  bins.loads[bin] = (bins.loads[bin] ?? 0) + (shares[expert] ?? 0) - (shares[given] ?? 0);
  return given;
}
