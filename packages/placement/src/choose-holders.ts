// Chooses, for one layer, the shard that serves each expert. Pure; the same input gives the same choice everywhere.
import type { ShardPlacement } from "./placement.ts";

/** No ready shard holds the expert. */
export const NO_HOLDER = -1;

/**
 * For each expert of `layer` the index of the shard that serves it, or NO_HOLDER. Of several ready holders the one
 * with the fewest experts chosen so far in this layer is taken, then the lowest index. `ready[i]` says whether shard i
 * may be used. Returns [experts].
 */
export function chooseHolders(
  shards: readonly ShardPlacement[],
  ready: readonly boolean[],
  layer: number,
  experts: number,
): Int32Array {
  const holders: number[][] = Array.from({ length: experts }, () => []);
  shards.forEach((shard, index) => {
    if (ready[index] !== true) return;
    for (const [slotLayer, expert] of shard.slots) {
      if (slotLayer === layer && expert < experts) holders[expert]?.push(index);
    }
  });
  const load = new Int32Array(shards.length);
  const chosen = new Int32Array(experts).fill(NO_HOLDER);
  const ascendingChoice = [...holders.keys()].sort((a, b) => count(holders, a) - count(holders, b) || a - b);
  for (const expert of ascendingChoice) {
    let best = NO_HOLDER;
    for (const shard of holders[expert] ?? []) {
      if (best === NO_HOLDER || (load[shard] ?? 0) < (load[best] ?? 0)) best = shard;
    }
    chosen[expert] = best;
    if (best !== NO_HOLDER) load[best] = (load[best] ?? 0) + 1;
  }
  return chosen;
}

function count(holders: readonly number[][], expert: number): number {
  return holders[expert]?.length ?? 0;
}
