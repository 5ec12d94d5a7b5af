// The whole cluster of a bench: every service once and its shards, all started at once.
import type { BenchProcess, ProcessGroup } from "./processes.ts";

const SHARDS = 2;

export interface ClusterSettings {
  readonly bundle: string;
  readonly data: string;
  /** Jobs the scheduler runs side by side; its own default when not given. */
  readonly jobsRunning?: number;
  /** Two when not given. */
  readonly shards?: number;
  /** Of each process that computes: one when not given. */
  readonly threads?: number;
}

/** Resolves when every process is ready; the public API is at the group's address "gateway". */
export function startCluster(group: ProcessGroup, settings: ClusterSettings): Promise<BenchProcess[]> {
  const shards = Array.from({ length: settings.shards ?? SHARDS }, (_, index) => `expert-shard-${index}`);
  const common = {
    MOEVIE_BUNDLE: settings.bundle,
    MOEVIE_DATA: settings.data,
    MOEVIE_INTRA_OP_THREADS: `${settings.threads ?? 1}`,
  };
  const peers = {
    MOEVIE_TEXT_ENCODER: group.address("text-encoder"),
    MOEVIE_ROUTER: group.address("router"),
    MOEVIE_DECODER: group.address("decoder"),
    ...(settings.jobsRunning !== undefined && { MOEVIE_JOBS_RUNNING_MAX: `${settings.jobsRunning}` }),
  };
  return Promise.all([
    group.start("gateway", "gateway", common),
    group.start("scheduler", "scheduler", { ...common, ...peers }),
    group.start("text-encoder", "text-encoder", common),
    group.start("router", "router", { ...common, MOEVIE_SHARDS: shards.map((name) => group.address(name)).join(",") }),
    ...shards.map((name, index) =>
      group.start("expert-shard", name, {
        ...common,
        MOEVIE_SHARD_INDEX: `${index}`,
        MOEVIE_SHARD_COUNT: `${shards.length}`,
      }),
    ),
    group.start("decoder", "decoder", common),
  ]);
}
