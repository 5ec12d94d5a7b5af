// What the steps of one running job share. Data only.
import type { JobSpec } from "@moevie/job-store";
import type { Clock, GrpcPeer, Logger, Metrics, Tracing } from "@moevie/runtime";
import type { StorePace } from "./checkpoint-spacing.ts";
import type { HeldLease } from "./held-lease.ts";
import type { ModelFacts } from "./model-facts.ts";
import type { RetryOptions, RetryPolicy } from "./retry.ts";
import type { StageClock } from "./stage-clock.ts";

export interface Peers {
  readonly textEncoder: GrpcPeer<"moevie.v1.TextEncoderService">;
  readonly router: GrpcPeer<"moevie.v1.DenoiseService">;
  readonly decoder: GrpcPeer<"moevie.v1.DecodeService">;
}

export interface SchedulerSettings {
  /** Names this scheduler in leases; the same after a restart. */
  readonly owner: string;
  readonly jobsRunningMax: number;
  /** Steps between two checkpoints at least. */
  readonly checkpointSteps: number;
  /** Checkpoints take this share of the steps' time at most; Infinity: whatever they take. */
  readonly checkpointShareMax: number;
  /** Steps between two previews; 0: none. */
  readonly previewSteps: number;
  /** Folder of tensors that requests may name; empty: they may not. */
  readonly referenceDir: string;
  readonly leaseMs: number;
  readonly leaseRenewMs: number;
  readonly retry: RetryPolicy;
}

/** How long decoding took lately, for estimates; shared by all jobs of the process. */
export interface DecodePace {
  secondsPerFrame: number | undefined;
}

export interface JobRun {
  readonly spec: JobSpec;
  readonly held: HeldLease;
  readonly model: ModelFacts;
  readonly peers: Peers;
  readonly settings: SchedulerSettings;
  readonly stages: StageClock;
  readonly pace: DecodePace;
  /** How long checkpoints took lately; shared by all jobs of the process. */
  readonly storePace: StorePace;
  readonly log: Logger;
  readonly metrics: Metrics;
  readonly tracing: Tracing;
  readonly clock: Clock;
  /** The job's span. */
  readonly traceparent: string;
}

/** How this run repeats calls to `peer`. */
export function retriesOf(run: JobRun, peer: keyof Peers, signal: AbortSignal = run.held.signal): RetryOptions {
  return {
    policy: run.settings.retry,
    signal,
    clock: run.clock,
    onRetry: (error) => {
      run.metrics.add("moevie_peer_retries_total", { peer, reason: error.reason });
      run.log.warn({ peer, reason: error.reason, detail: error.detail }, "calling again");
    },
  };
}
