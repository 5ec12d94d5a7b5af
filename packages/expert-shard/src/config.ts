// Settings of an expert-shard. The only file here that reads the environment it is given.
import { SEGMENT_FOLDER, parseSegmentFolder } from "@moevie/fabric";
import { DEVICE_SETTINGS, readConfig } from "@moevie/runtime";
import type { ServiceContext } from "@moevie/runtime";

export interface ShardConfig {
  readonly bundle: string;
  readonly device: string;
  readonly intraOpThreads: number;
  readonly shardIndex: number;
  /** Shards that share the experts when they start; one with a higher index starts without any. */
  readonly shardCount: number;
  /** Milliseconds that a shard which is told to end goes on for its experts to go elsewhere. */
  readonly leaveMs: number;
  /** Empty: experts are spread evenly, whole denoisers by the steps they serve. */
  readonly placementFile: string;
  /** Folder of memory for rows from routers of this host; without one they come by the socket. */
  readonly segmentFolder: string | undefined;
}

const SHARDS_MAX = 4096;
const LEAVE_MS_MAX = 3_600_000;

/** Throws CONFIG_INVALID naming variable, value and what is allowed. */
export function shardConfig(env: ServiceContext["env"]): ShardConfig {
  const read = readConfig(env, {
    ...DEVICE_SETTINGS,
    MOEVIE_SHARD_INDEX: { kind: "int", min: 0, max: SHARDS_MAX - 1, default: 0 },
    MOEVIE_SHARD_COUNT: { kind: "int", min: 1, max: SHARDS_MAX, default: 1 },
    MOEVIE_LEAVE_MS: { kind: "int", min: 0, max: LEAVE_MS_MAX, default: 0 },
    MOEVIE_PLACEMENT_FILE: { kind: "path", default: "" },
    MOEVIE_SEGMENT_DIR: { kind: "string", default: SEGMENT_FOLDER },
  });
  return {
    bundle: read.MOEVIE_BUNDLE,
    device: read.MOEVIE_DEVICE,
    intraOpThreads: read.MOEVIE_INTRA_OP_THREADS,
    shardIndex: read.MOEVIE_SHARD_INDEX,
    shardCount: read.MOEVIE_SHARD_COUNT,
    leaveMs: read.MOEVIE_LEAVE_MS,
    placementFile: read.MOEVIE_PLACEMENT_FILE,
    segmentFolder: parseSegmentFolder("MOEVIE_SEGMENT_DIR", read.MOEVIE_SEGMENT_DIR),
  };
}
