// Moves of a stored job through the state machine, each with its event. Pure: no server here.
import { MoevieError, asMoevieError } from "@moevie/contracts";
import { isFinal, transition, type JobTransition } from "./job-state.ts";
import type { JobOutcome, JobProgress } from "./job-store.ts";
import { withEvent, type StoredJob } from "./nats-record.ts";

/** Throws LEASE_LOST, as `transition` does. */
export function moved(job: StoredJob, event: JobTransition): StoredJob {
  const state = transition(job.state, event);
  return withEvent({ ...job, state, checkpoints: isFinal(state) ? [] : job.checkpoints });
}

export function finished(job: StoredJob, token: number, outcome: JobOutcome, atMs: number): StoredJob {
  const base = { token, atMs };
  switch (outcome.kind) {
    case "completed": {
      const progress: JobProgress = { ...job.progress, stage: "commit", percent: 100, remainingSeconds: 0 };
      return moved({ ...job, progress }, { kind: "complete", ...base, artefact: outcome.artefact });
    }
    case "failed":
      return moved(job, { kind: "fail", ...base, error: outcome.error });
    case "cancelled":
      return moved(job, { kind: "stop", ...base });
  }
}

/** To the owner of a lease a deleted job is a lost lease. */
export function lost(thrown: unknown): MoevieError {
  const error = asMoevieError(thrown);
  return error.reason === "VIDEO_NOT_FOUND"
    ? new MoevieError("LEASE_LOST", "The job was deleted.", { cause: error })
    : error;
}
