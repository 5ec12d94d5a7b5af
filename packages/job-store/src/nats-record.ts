// A job as the key-value bucket holds it, and the record it stands for. Pure: no server here. Readers keep fields that they do not
// know, so that two versions side by side lose nothing of each other's.
import { MoevieError } from "@moevie/contracts";
import type { CheckpointFacts } from "./checkpoint-file.ts";
import { JOB_STATE_KINDS, isFinal, type JobState } from "./job-state.ts";
import { DEFAULT_TENANT, type JobPriority, type QueueAccounts } from "./queue-order.ts";
import type { JobEvent, JobProgress, JobRecord, JobSpec, StageTiming } from "./job-store.ts";

/** Version this build writes. */
const VERSION = 1;

export interface EventBody extends Omit<JobEvent, "sequence" | "previewPng"> {
  /** Revision of the job's preview that belongs to this event. */
  readonly preview?: number;
}

/** The event a write goes with: the record holds it until the next, so that whoever finds it missing in the stream can add it. */
export interface PendingEvent {
  /** 1 for the job's first. */
  readonly number: number;
  /** Sequence of the event before it in the stream; 0: none. */
  readonly after: number;
  readonly body: EventBody;
}

export interface StoredJob {
  /** Version that wrote it. */
  readonly version: number;
  /** Oldest version that can read and rewrite it. */
  readonly readableFrom: number;
  /** Place in the order of submission; absent until the second write: then it is the first write's revision. */
  readonly number?: number;
  readonly id: string;
  readonly spec: JobSpec;
  readonly bundleDigest: string;
  readonly warnings: readonly string[];
  readonly traceparent?: string;
  readonly requestKey?: string;
  readonly createdAtMs: number;
  /** Absent in records of before there were tenants: the default tenant's, of normal priority. */
  readonly tenant?: string;
  readonly priority?: JobPriority;
  readonly deadlineAtMs?: number;
  /** It ran, and its tenant was charged for it. */
  readonly isBegun?: boolean;
  /** As they were with this job's claim. */
  readonly accounts?: QueueAccounts;
  readonly state: JobState;
  readonly attempt: number;
  readonly progress: JobProgress;
  readonly stageTimings: readonly StageTiming[];
  readonly leaseMs: number;
  /** Newest first; at most checkpointGenerationsMax. */
  readonly checkpoints: readonly CheckpointFacts[];
  readonly event: PendingEvent;
}

/** A job at a revision of its key. */
export interface JobEntry {
  readonly job: StoredJob;
  readonly revision: number;
}

export type NewJob = Pick<
  StoredJob,
  | "id"
  | "spec"
  | "bundleDigest"
  | "warnings"
  | "traceparent"
  | "requestKey"
  | "createdAtMs"
  | "tenant"
  | "priority"
  | "deadlineAtMs"
>;

/** Progress of a job that waits for its first step. */
export function waitingProgress({ steps }: JobSpec): JobProgress {
  return { stage: "queue", step: 0, stepCount: steps, percent: 0 };
}

export function tenantOf({ tenant = DEFAULT_TENANT }: Pick<StoredJob, "tenant">): string {
  return tenant;
}

export function newJob(given: NewJob): StoredJob {
  const progress = waitingProgress(given.spec);
  return {
    version: VERSION,
    readableFrom: VERSION,
    ...given,
    state: { kind: "queued" },
    attempt: 0,
    progress,
    stageTimings: [],
    leaseMs: 0,
    checkpoints: [],
    event: { number: 1, after: 0, body: { state: "queued", progress } },
  };
}

/** `job` with an event that says how it is now. */
export function withEvent(job: StoredJob, preview?: number): StoredJob {
  const { state, progress } = job;
  const body: EventBody = {
    state: state.kind,
    progress,
    ...(state.kind === "failed" ? { error: state.error } : {}),
    ...(preview === undefined ? {} : { preview }),
  };
  return { ...job, event: { number: job.event.number + 1, after: 0, body } };
}

/** Throws UNSUPPORTED for a record that only a newer build can read, STORE_CORRUPT for what is no record. */
export function decodeJob(bytes: Uint8Array, revision: number): JobEntry {
  let job: StoredJob;
  try {
    job = JSON.parse(Buffer.from(bytes).toString("utf8")) as StoredJob;
    if (!(JOB_STATE_KINDS as readonly string[]).includes(job.state.kind))
      throw new Error("no state that this build knows");
  } catch (cause) {
    throw new MoevieError("STORE_CORRUPT", "A job's record is not one that moevie wrote.", { cause });
  }
  if (job.readableFrom > VERSION) {
    const message = `The job's record has version ${job.version}; this build reads up to ${VERSION}.`;
    throw new MoevieError("UNSUPPORTED", message);
  }
  return { job: job.number === undefined ? { ...job, number: revision } : job, revision };
}

export function encodeJob(job: StoredJob): Uint8Array {
  return Buffer.from(JSON.stringify(job));
}

export function recordOf(job: StoredJob): JobRecord {
  const { id, spec, bundleDigest, warnings, traceparent, state, attempt, progress, stageTimings, createdAtMs } = job;
  const { priority = "normal", deadlineAtMs } = job;
  return {
    id,
    spec,
    bundleDigest,
    warnings,
    state,
    attempt,
    progress,
    stageTimings,
    createdAtMs,
    ...(traceparent === undefined ? {} : { traceparent }),
    ...(deadlineAtMs === undefined ? {} : { deadlineAtMs }),
    tenant: tenantOf(job),
    priority,
  };
}

/** Names of the files that the record needs; those of a live lease are never named here. */
export function filesNeeded(job: StoredJob, artefactNames: (token: number) => readonly string[]): readonly string[] {
  return [
    ...(job.state.kind === "completed" ? artefactNames(job.state.token) : []),
    ...(isFinal(job.state) ? [] : job.checkpoints.map(({ name }) => name)),
  ];
}
