// Which shards hold each expert of one layer. Pure; the same input gives the same answer everywhere.
import type { ShardPlacement } from "./placement.ts";

/** The shards that hold each expert of `layer` and are ready, ascending, [experts][any]. `ready[i]` says whether shard i may be used. */
export function holdersOf(
  shards: readonly ShardPlacement[],
  ready: readonly boolean[],
  layer: number,
  experts: number,
): readonly (readonly number[])[] {
  const holders: number[][] = Array.from({ length: experts }, () => []);
  shards.forEach((shard, index) => {
    if (ready[index] !== true) return;
    for (const [slotLayer, expert] of shard.slots)
      if (slotLayer === layer && holders[expert]?.at(-1) !== index) holders[expert]?.push(index);
  });
  return holders;
}
