// The life of a job: its states as a discriminated union and the one function that moves between them.
// Pure: no clock, no store, no token making; callers pass times and tokens in.
import { MoevieError, limit, type Reason } from "@moevie/contracts";

/** Facts of a finished clip, as the decoder measured them. */
export interface ArtefactFacts {
  readonly sizeBytes: number;
  /** sha256 of the MP4, hex. */
  readonly sha256: string;
  readonly codec: string;
  readonly pixelFormat: string;
  readonly width: number;
  readonly height: number;
  readonly fps: number;
  readonly frameCount: number;
}

/** Why a job failed: a reason of the catalogue and public text. */
export interface JobError {
  readonly reason: Reason;
  readonly message: string;
}

/** Times are wall clock milliseconds since 1970, for people only: no lease compares them. */
export type JobState =
  | { readonly kind: "queued" }
  | {
      readonly kind: "running";
      readonly owner: string;
      /** Fencing token: every write of the owner must carry it. */
      readonly token: number;
      readonly cancelRequested: boolean;
      readonly startedAtMs: number;
    }
  | {
      readonly kind: "completed";
      readonly token: number;
      readonly startedAtMs: number;
      readonly finishedAtMs: number;
      readonly artefact: ArtefactFacts;
    }
  | {
      readonly kind: "failed";
      readonly startedAtMs?: number;
      readonly finishedAtMs: number;
      readonly error: JobError;
    }
  | { readonly kind: "cancelled"; readonly startedAtMs?: number; readonly finishedAtMs: number };

export type JobStateKind = JobState["kind"];
export const JOB_STATE_KINDS = ["queued", "running", "completed", "failed", "cancelled"] as const;

export type JobTransition =
  | { readonly kind: "claim"; readonly owner: string; readonly token: number; readonly atMs: number }
  | { readonly kind: "release"; readonly token: number; readonly atMs: number }
  | { readonly kind: "expire"; readonly attempt: number; readonly atMs: number }
  | { readonly kind: "lapse"; readonly atMs: number }
  | { readonly kind: "retry" }
  | { readonly kind: "cancel"; readonly atMs: number }
  | { readonly kind: "complete"; readonly token: number; readonly atMs: number; readonly artefact: ArtefactFacts }
  | { readonly kind: "fail"; readonly token: number; readonly atMs: number; readonly error: JobError }
  | { readonly kind: "stop"; readonly token: number; readonly atMs: number };

/** Has the job reached a state it leaves no more, but for a dead one that an operator queues again? */
export function isFinal(state: JobState): boolean {
  return state.kind !== "queued" && state.kind !== "running";
}

export const DEADLINE_PASSED = "The job's deadline passed before it was finished.";

/** Failures that another try does not mend, or that the caller asked for; all others make a job dead. */
export const CALLERS_REASONS: readonly Reason[] = ["INVALID_FIELD", "UNSUPPORTED", "DEADLINE", "CANCELLED"];

/** Did the job fail for no fault of its caller? An operator may look into it and queue it again. */
export function isDead(state: JobState): boolean {
  return state.kind === "failed" && !CALLERS_REASONS.includes(state.error.reason);
}

/**
 * The only way from one state to the next.
 *
 * | from      | claim   | release  | expire                          | cancel           | complete   | fail    | stop       | lapse  | retry   |
 * |-----------|---------|----------|---------------------------------|------------------|------------|---------|------------|--------|---------|
 * | queued    | running | lost     | –                               | cancelled        | lost       | lost    | lost       | failed | refused |
 * | running   | –       | queued * | queued, failed at the last      | running, flagged | completed *| failed *| cancelled *| –      | refused |
 * |           |         |          | attempt, cancelled when flagged |                  |            |         |            |        |         |
 * | completed | –       | lost     | –                               | unchanged        | lost       | lost    | lost       | –      | refused |
 * | failed    | –       | lost     | –                               | unchanged        | lost       | lost    | lost       | –      | queued †|
 * | cancelled | –       | lost     | –                               | unchanged        | lost       | lost    | lost       | –      | refused |
 *
 * `*`: only with the token of the lease. `†`: only when it is dead, else refused: MoevieError VIDEO_NOT_DEAD. lost: LEASE_LOST.
 * –: a programmer's error. lapse: the deadline of a waiting job passed. A job that completes before its
 * owner saw the cancel flag stays completed; one that its owner gives back with the flag set is cancelled.
 */
export function transition(state: JobState, event: JobTransition): JobState {
  switch (event.kind) {
    case "claim":
      assertState(state, "queued", event);
      return {
        kind: "running",
        owner: event.owner,
        token: event.token,
        cancelRequested: false,
        startedAtMs: event.atMs,
      };
    case "release": {
      const running = held(state, event.token);
      if (running.cancelRequested)
        return { kind: "cancelled", startedAtMs: running.startedAtMs, finishedAtMs: event.atMs };
      return { kind: "queued" };
    }
    case "expire":
      return expired(state, event);
    case "lapse":
      assertState(state, "queued", event);
      return { kind: "failed", finishedAtMs: event.atMs, error: { reason: "DEADLINE", message: DEADLINE_PASSED } };
    case "retry":
      if (isDead(state)) return { kind: "queued" };
      throw new MoevieError("VIDEO_NOT_DEAD", "Only a video that failed for no fault of its caller is queued again.", {
        detail: `state ${state.kind}`,
      });
    case "cancel":
      if (state.kind === "queued") return { kind: "cancelled", finishedAtMs: event.atMs };
      return state.kind === "running" ? { ...state, cancelRequested: true } : state;
    case "complete": {
      const { token, startedAtMs } = held(state, event.token);
      return { kind: "completed", token, startedAtMs, finishedAtMs: event.atMs, artefact: event.artefact };
    }
    case "fail":
      return {
        kind: "failed",
        startedAtMs: held(state, event.token).startedAtMs,
        finishedAtMs: event.atMs,
        error: event.error,
      };
    case "stop":
      return { kind: "cancelled", startedAtMs: held(state, event.token).startedAtMs, finishedAtMs: event.atMs };
  }
}

type RunningState = Extract<JobState, { kind: "running" }>;

/** The running state if `token` still holds it, else LEASE_LOST. */
export function held(state: JobState, token: number): RunningState {
  if (state.kind === "running" && state.token === token) return state;
  throw new MoevieError("LEASE_LOST", "Another scheduler owns this job now, or it has ended.", {
    detail: `token ${token}, state ${state.kind}`,
  });
}

function expired(state: JobState, event: Extract<JobTransition, { kind: "expire" }>): JobState {
  assertState(state, "running", event);
  const { startedAtMs } = state;
  if (state.cancelRequested) return { kind: "cancelled", startedAtMs, finishedAtMs: event.atMs };
  if (event.attempt < limit("jobAttemptsMax")) return { kind: "queued" };
  const message = `The job was started ${event.attempt} times and its scheduler was lost each time.`;
  return { kind: "failed", startedAtMs, finishedAtMs: event.atMs, error: { reason: "PEER_UNAVAILABLE", message } };
}

function assertState<K extends JobStateKind>(
  state: JobState,
  kind: K,
  event: JobTransition,
): asserts state is Extract<JobState, { kind: K }> {
  if (state.kind !== kind) throw new Error(`${event.kind} needs a ${kind} job, not a ${state.kind} one`);
}
