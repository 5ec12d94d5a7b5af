// One leased job from encode to its end, in the order of the steps; each step is a file of its name.
import { MoevieError, asMoevieError } from "@moevie/contracts";
import type { JobOutcome, JobStore, Lease } from "@moevie/job-store";
import { traceIdOf, type Clock, type Logger, type Metrics, type Tracing } from "@moevie/runtime";
import type { StorePace } from "./checkpoint-spacing.ts";
import { decode } from "./decode.ts";
import { denoise } from "./denoise.ts";
import { encode } from "./encode.ts";
import { commitClip, finishJob, outcomeOf } from "./finish-job.ts";
import { HeldLease } from "./held-lease.ts";
import { encodeProgress } from "./job-progress.ts";
import { retriesOf, type DecodePace, type JobRun, type Peers, type SchedulerSettings } from "./job-run.ts";
import type { ModelFacts } from "./model-facts.ts";
import { retryPure } from "./retry.ts";
import { StageClock } from "./stage-clock.ts";
import { latentShape } from "./start-latent.ts";

export interface RunParts {
  readonly store: JobStore;
  readonly model: ModelFacts;
  readonly peers: Peers;
  readonly settings: SchedulerSettings;
  readonly log: Logger;
  readonly metrics: Metrics;
  readonly tracing: Tracing;
  readonly pace: DecodePace;
  readonly storePace: StorePace;
  readonly clock: Clock;
  readonly signal: AbortSignal;
}

/** Runs the job and writes its end. Never rejects. */
export async function runJob(parts: RunParts, lease: Lease): Promise<void> {
  const { store, settings, metrics, tracing, clock } = parts;
  const log = parts.log.child({ job: lease.id, trace: traceIdOf(lease.job.traceparent) });
  const startMs = clock.monotonicMs();
  const held = new HeldLease({ store, lease, leaseRenewMs: settings.leaseRenewMs, drain: parts.signal, log, clock });
  const queueSeconds = queueWait(lease);
  metrics.observe("moevie_job_queue_wait_seconds", {}, queueSeconds);
  if (lease.job.attempt > 1) metrics.add("moevie_job_redeliveries_total");
  log.info({ attempt: lease.job.attempt, steps: lease.job.spec.steps }, "job leased");
  const attributes = { "moevie.job": lease.id, "moevie.attempt": lease.job.attempt };
  let outcome: JobOutcome | "release" | "abandon";
  try {
    outcome = await tracing.span("job", { traceparent: lease.job.traceparent, attributes }, ({ traceparent }) => {
      const stages = new StageClock(metrics, tracing, traceparent, queueSeconds);
      return makeClip({ ...parts, spec: lease.job.spec, held, stages, log, traceparent }, store);
    });
  } catch (thrown) {
    const error = asMoevieError(thrown);
    outcome = outcomeOf(error, held.stopReason);
    if (typeof outcome === "object" && outcome.kind === "failed") {
      log.error({ reason: error.reason, detail: error.detail, err: error.cause }, error.message);
    }
  }
  await held.end();
  await finishJob({ store, lease, outcome, retry: settings.retry, clock, log, metrics, startMs });
}

async function makeClip(run: JobRun, store: JobStore): Promise<JobOutcome> {
  const { held, model, stages } = run;
  const { bundleDigest } = held.lease.job;
  if (bundleDigest !== "" && bundleDigest !== model.digest) {
    throw new MoevieError("BUNDLE_MISMATCH", "The job was accepted for another bundle than the one served now.");
  }
  const shape = latentShape(run.spec, model);
  await held.progress(encodeProgress(run), stages.timings);
  const contexts = await stages.time("encode", (traceparent) => encode(run, traceparent));
  const saved = await loadCheckpoint(run, store);
  const denoised = await stages.time("denoise", (traceparent) => denoise(run, contexts, shape, saved, traceparent));
  // A decoder that goes away, or a store that does while it takes the clip: the clip is made again, in a file begun again.
  try {
    return await retryPure(
      async () => {
        const clip = await stages.time("decode", (traceparent) =>
          decode(run, store, denoised.latent, shape, traceparent),
        );
        return await stages.time("commit", () => commitClip(run, clip));
      },
      retriesOf(run, "decoder"),
    );
  } catch (thrown) {
    if (held.stopReason?.reason === "DRAINING") await denoised.keep();
    throw thrown;
  }
}

/** A store that is busy is asked again: the job must not begin anew for that, only for a checkpoint that is damaged. */
async function loadCheckpoint({ held, settings, log, clock }: JobRun, store: JobStore): Promise<Uint8Array | null> {
  const onRetry = (error: MoevieError): void =>
    log.warn({ reason: error.reason, detail: error.detail }, "reading the checkpoint again");
  const options = { policy: settings.retry, signal: held.signal, clock, onRetry };
  try {
    return await retryPure(() => store.loadCheckpoint(held.lease.id), options);
  } catch (thrown) {
    const { reason, detail } = asMoevieError(thrown);
    if (reason !== "STORE_CORRUPT") throw thrown;
    log.warn({ reason, detail }, "the checkpoint is missing or damaged: starting from the beginning");
    return null;
  }
}

/** Both times are the store's own wall clock. */
function queueWait({ job }: Lease): number {
  const startedAtMs = job.state.kind === "running" ? job.state.startedAtMs : job.createdAtMs;
  return Math.max(0, startedAtMs - job.createdAtMs) / 1000;
}
