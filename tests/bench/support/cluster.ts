// The whole cluster of a bench: every service once and two shards, all started at once.
import type { BenchProcess, ProcessGroup } from "./processes.ts";

const SHARDS = ["expert-shard-0", "expert-shard-1"];

export interface ClusterSettings {
  readonly bundle: string;
  readonly data: string;
  /** Jobs the scheduler runs side by side; its own default when not given. */
  readonly jobsRunning?: number;
}

/** Resolves when every process is ready; the public API is at the group's address "gateway". */
export function startCluster(group: ProcessGroup, settings: ClusterSettings): Promise<BenchProcess[]> {
  const common = { MOEVIE_BUNDLE: settings.bundle, MOEVIE_DATA: settings.data };
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
    group.start("router", "router", { ...common, MOEVIE_SHARDS: SHARDS.map((name) => group.address(name)).join(",") }),
    ...SHARDS.map((name, index) =>
      group.start("expert-shard", name, {
        ...common,
        MOEVIE_SHARD_INDEX: `${index}`,
        MOEVIE_SHARD_COUNT: `${SHARDS.length}`,
      }),
    ),
    group.start("decoder", "decoder", common),
  ]);
}
