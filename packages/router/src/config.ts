// Settings of a router. The only file here that reads the environment it is given.
import { limit } from "@moevie/contracts";
import { SEGMENT_FOLDER, WireType, parseSegmentFolder } from "@moevie/fabric";
import { DEVICE_SETTINGS, expandAddresses, readConfig } from "@moevie/runtime";
import type { PeerAddress, ServiceContext } from "@moevie/runtime";

/** With fewer rows, what a graph and an exchange cost whatever their size is more than what taking turns hides. */
const BRANCH_ROWS_MIN = 32;
const ROWS_MAX = 1_048_576;
/** So that a cluster that is late because it has too much to do gets hardly more. */
const HEDGE_SHARE = 0.05;
/** A supervisor has a small shard back by then. */
const DONOR_AFTER_MS = 2000;
/** A step must still be there when a donor has loaded what it waits for. */
const DONOR_AFTER_MS_MAX = limit("denoiseCallMsMax") / 2;

export interface RouterConfig {
  readonly bundle: string;
  readonly device: string;
  readonly intraOpThreads: number;
  /** Addresses of the shards; the place in the list is the shard's index. */
  readonly shards: readonly PeerAddress[];
  /** Folder of memory for rows to shards of this host; without one they go by the socket. */
  readonly segmentFolder: string | undefined;
  readonly wire: WireType;
  /** Evaluations that run as one batch at most; 1: each runs alone. */
  readonly batchMax: number;
  /** Below so many rows the branches of a job are one batch too. */
  readonly branchRowsMin: number;
  /** Hedges there may be for each exchange; 0: none. */
  readonly hedgeShare: number;
  /** Milliseconds that a step waits for a shard to come back before others load what it had. */
  readonly donorAfterMs: number;
}

/** Throws CONFIG_INVALID naming variable, value and what is allowed. */
export function routerConfig(env: ServiceContext["env"]): RouterConfig {
  const read = readConfig(env, {
    ...DEVICE_SETTINGS,
    MOEVIE_SHARDS: { kind: "list" },
    MOEVIE_SEGMENT_DIR: { kind: "string", default: SEGMENT_FOLDER },
    MOEVIE_WIRE_TYPE: { kind: "enum", values: ["f32", "bf16", "f16"], default: "f32" },
    MOEVIE_BATCH_MAX: { kind: "int", default: limit("batchEvaluationsMax"), min: 1, max: limit("batchEvaluationsMax") },
    MOEVIE_BRANCH_ROWS_MIN: { kind: "int", default: BRANCH_ROWS_MIN, min: 0, max: ROWS_MAX },
    MOEVIE_DONOR_AFTER_MS: { kind: "int", default: DONOR_AFTER_MS, min: 0, max: DONOR_AFTER_MS_MAX },
    MOEVIE_HEDGE_SHARE: { kind: "float", default: HEDGE_SHARE, min: 0, max: 1 },
  });
  return {
    bundle: read.MOEVIE_BUNDLE,
    device: read.MOEVIE_DEVICE,
    intraOpThreads: read.MOEVIE_INTRA_OP_THREADS,
    shards: expandAddresses(read.MOEVIE_SHARDS, "MOEVIE_SHARDS"),
    segmentFolder: parseSegmentFolder("MOEVIE_SEGMENT_DIR", read.MOEVIE_SEGMENT_DIR),
    wire: WireType[read.MOEVIE_WIRE_TYPE],
    batchMax: read.MOEVIE_BATCH_MAX,
    branchRowsMin: read.MOEVIE_BRANCH_ROWS_MIN,
    donorAfterMs: read.MOEVIE_DONOR_AFTER_MS,
    hedgeShare: read.MOEVIE_HEDGE_SHARE,
  };
}
