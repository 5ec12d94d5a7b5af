// Who loads the experts of a layer that nobody holds any more. Pure; the same input gives the same choice everywhere.
import { NO_HOLDER } from "./choose-replicas.ts";

/**
 * A shard for each of `missing`, in its order: the one with fewest slots of the layer, those it has been given here counted, and the
 * lowest number of several. `slots` are the slots of the layer by shard; undefined where a shard may not be asked. NO_HOLDER where none may.
 */
export function chooseDonors(missing: readonly number[], slots: readonly (number | undefined)[]): number[] {
  const counts = slots.map((count) => count ?? Infinity);
  return missing.map(() => {
    const fewest = Math.min(...counts);
    const shard = fewest === Infinity ? NO_HOLDER : counts.indexOf(fewest);
    if (shard !== NO_HOLDER) counts[shard] = fewest + 1;
    return shard;
  });
}
