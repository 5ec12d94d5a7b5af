// Shares with their uncertainty.

const Z = 1.96;

export interface Share {
  readonly share: number;
  readonly low: number;
  readonly high: number;
}

/** Share of true and its 95 % bounds after Wilson. */
export function shareOf(hits: readonly boolean[]): Share {
  const n = hits.length;
  const share = hits.filter(Boolean).length / n;
  const middle = (share + Z ** 2 / 2 / n) / (1 + Z ** 2 / n);
  const half = (Z / (1 + Z ** 2 / n)) * Math.sqrt((share * (1 - share)) / n + Z ** 2 / 4 / n ** 2);
  return { share, low: middle - half, high: middle + half };
}
