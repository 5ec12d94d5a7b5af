// Packs copies of experts into bins of equal size, so that bins weigh about the same. Pure.
import { emptyBins, fill, put, type Bins } from "./bins.ts";
import { heaviest, level } from "./level.ts";

/**
 * `copies` (experts, one entry a copy) in `count` bins, as EPLB's balanced packing puts them: the heaviest first, each into the lightest
 * bin with room; with one place a bin, copy i into bin i. That may put an expert twice into a bin (EPLB's issue 22). Here such a bin is
 * passed over; where that makes the heaviest bin heavier, copies are exchanged until it is not, or nothing helps.
 * Source: deepseek-ai/EPLB, eplb.py, balanced_packing.
 */
export function pack(copies: readonly number[], shares: Float64Array, count: number): Bins {
  const size = copies.length / count;
  const bins = emptyBins(count, size);
  if (size === 1) {
    copies.forEach((expert, bin) => put(bins, bin, expert, shares));
    return bins;
  }
  fill(bins, copies, shares);
  const published = emptyBins(count, size);
  fill(published, copies, shares, true);
  level(bins, shares, heaviest(published.loads));
  return bins;
}
