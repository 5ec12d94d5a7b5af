// The way of one layer from what shards hold to what they are to hold, such that every expert is held at every moment. Pure.

/** What one shard is to hold of the layer. */
interface StageChange {
  readonly shard: number;
  readonly experts: readonly number[];
}

/** Changes that may be made in any order. */
export interface Stage {
  readonly kind: "adding" | "removing";
  readonly changes: readonly StageChange[];
}

/**
 * From `held` to `wanted`, both [shards][any]: first copies are added, then the others are taken away. A shard that only gains has its
 * target after the first stage; nothing to do: [].
 */
export function layerStages(
  held: readonly (readonly number[])[],
  wanted: readonly (readonly number[])[],
): readonly Stage[] {
  const added: StageChange[] = [];
  const removed: StageChange[] = [];
  wanted.forEach((target, shard) => {
    const has = held[shard] ?? [];
    const both = [...new Set([...has, ...target])].sort((a, b) => a - b);
    if (both.length > has.length) added.push({ shard, experts: both });
    if (both.length > target.length) removed.push({ shard, experts: target.toSorted((a, b) => a - b) });
  });
  const stages = [
    { kind: "adding", changes: added },
    { kind: "removing", changes: removed },
  ] as const;
  return stages.filter(({ changes }) => changes.length > 0);
}
