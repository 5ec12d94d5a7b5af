// How many expert-shard processes a cluster on one machine may have.

/** Range and default of --shards. */
export const SHARD_COUNT = { min: 1, max: 64, default: 2 } as const;
