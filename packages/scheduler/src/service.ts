// The scheduler's life: claims jobs and runs several side by side until it drains. It answers no calls but health.
import { declareEnds, type JobStore } from "@moevie/job-store";
import type { Clock, Logger, Metrics, Tracing } from "@moevie/runtime";
import { StorePace } from "./checkpoint-spacing.ts";
import type { DecodePace, Peers, SchedulerSettings } from "./job-run.ts";
import { leaseJobs } from "./lease-job.ts";
import type { ModelFacts } from "./model-facts.ts";
import { runJob } from "./run-job.ts";

export interface SchedulerParts {
  readonly store: JobStore;
  readonly model: ModelFacts;
  readonly peers: Peers;
  readonly settings: SchedulerSettings;
  readonly log: Logger;
  readonly metrics: Metrics;
  readonly tracing: Tracing;
  readonly clock: Clock;
  /** Aborts when the service drains. */
  readonly signal: AbortSignal;
}

export interface Scheduler {
  /** Resolves when the signal aborted and every job was given back. */
  readonly stopped: Promise<void>;
}

export function startScheduler(parts: SchedulerParts): Scheduler {
  const { store, settings, signal, log, metrics, clock } = parts;
  declareMetrics(metrics);
  const pace: DecodePace = { secondsPerFrame: undefined };
  const storePace = new StorePace();
  const onTurn = async (): Promise<void> => {
    for (const [state, jobs] of Object.entries(await store.counts()))
      metrics.set("moevie_jobs_in_state", { state }, jobs);
  };
  return {
    stopped: leaseJobs({
      store,
      settings,
      signal,
      log,
      clock,
      onTurn,
      run: (lease) => runJob({ ...parts, pace, storePace }, lease),
    }),
  };
}

/** Series that boards divide by must exist before their first event. */
function declareMetrics(metrics: Metrics): void {
  declareEnds(metrics);
  metrics.declare("moevie_denoise_steps_total");
  metrics.declare("moevie_job_checkpoints_total");
  metrics.declare("moevie_job_checkpoint_bytes_total");
  metrics.declare("moevie_job_checkpoint_seconds_total");
  metrics.declare("moevie_job_redeliveries_total");
  metrics.declare("moevie_frames_generated_total");
  metrics.declare("moevie_video_seconds_generated_total");
}
