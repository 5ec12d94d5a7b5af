// Step finish-job: the fenced end of a job, whatever the end is. Nothing is visible before, nothing is written after.
import { asMoevieError, type MoevieError } from "@moevie/contracts";
import { countEnd, type JobOutcome, type JobStore, type Lease } from "@moevie/job-store";
import type { Clock, Logger, Metrics } from "@moevie/runtime";
import { credentials } from "./credentials.ts";
import { discard, type DecodedClip } from "./decode.ts";
import { commitProgress } from "./job-progress.ts";
import type { JobRun } from "./job-run.ts";
import { retryPure, type RetryPolicy } from "./retry.ts";

/** Makes the clip's file durable and answers the outcome that will make it visible. */
export async function commitClip(run: JobRun, { attempt, facts }: DecodedClip): Promise<JobOutcome> {
  await run.held.progress(commitProgress(run), run.stages.timings);
  let sizeBytes: number;
  try {
    await attempt.writeCompanion("credentials.json", credentials(run, facts));
    sizeBytes = await attempt.commit();
  } catch (thrown) {
    await discard(run, attempt);
    throw thrown;
  }
  const { sha256, codec, pixelFormat, width, height, fps, frameCount } = facts;
  return { kind: "completed", artefact: { sizeBytes, sha256, codec, pixelFormat, width, height, fps, frameCount } };
}

/** Why a job stopped, as its last record. undefined: the job is another's, or goes back to the queue. */
export function outcomeOf(error: MoevieError, stop: MoevieError | undefined): JobOutcome | "release" | "abandon" {
  if (stop?.reason === "LEASE_LOST" || error.reason === "LEASE_LOST") return "abandon";
  if (stop?.reason === "CANCELLED") return { kind: "cancelled" };
  if (stop?.reason === "DRAINING") return "release";
  const { reason, message } = stop ?? error;
  return { kind: "failed", error: { reason, message } };
}

export interface Conclusion {
  readonly store: JobStore;
  readonly lease: Lease;
  readonly outcome: JobOutcome | "release" | "abandon";
  readonly retry: RetryPolicy;
  readonly clock: Clock;
  readonly log: Logger;
  readonly metrics: Metrics;
  readonly startMs: number;
}

/** Writes the end. A store that is away is waited for; a lease lost meanwhile means the job is another's. */
export async function finishJob(conclusion: Conclusion): Promise<void> {
  const { store, lease, outcome, retry, clock, log, metrics } = conclusion;
  if (outcome === "abandon") {
    log.warn("the lease was lost: another scheduler goes on");
    return;
  }
  const write = (): Promise<unknown> => (outcome === "release" ? store.release(lease) : store.finish(lease, outcome));
  try {
    // No signal: the end must be written even while the service drains; the policy bounds it.
    const onRetry = (error: MoevieError): void =>
      log.warn({ reason: error.reason, detail: error.detail }, "writing the end again");
    await retryPure(write, { policy: retry, signal: new AbortController().signal, clock, onRetry });
  } catch (thrown) {
    const error = asMoevieError(thrown);
    log.error(
      { reason: error.reason, detail: error.detail },
      "the job's end could not be written; its lease will run out",
    );
    return;
  }
  if (outcome === "release") {
    log.info("gave the job back");
    return;
  }
  const reason = outcome.kind === "failed" ? outcome.error.reason : "";
  countEnd(metrics, { from: "running", outcome: outcome.kind, reason });
  const seconds = (clock.monotonicMs() - conclusion.startMs) / 1000;
  metrics.observe("moevie_job_duration_seconds", { outcome: outcome.kind }, seconds);
  if (outcome.kind === "completed") {
    metrics.add("moevie_frames_generated_total", {}, outcome.artefact.frameCount);
    metrics.add("moevie_video_seconds_generated_total", {}, outcome.artefact.frameCount / outcome.artefact.fps);
  }
  log.info({ outcome: outcome.kind, reason, seconds: Number(seconds.toFixed(3)) }, "job ended");
}
