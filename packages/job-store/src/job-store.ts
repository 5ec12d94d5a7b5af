// What a job store promises to gateway and scheduler, whichever store is behind it. Records only: no tensors, no transport.
import type { QualityName } from "@moevie/contracts";
import type { Artefacts } from "./artefact-names.ts";
import type { ArtefactFacts, JobError, JobState, JobStateKind } from "./job-state.ts";
import type { JobPriority } from "./queue-order.ts";

/** A spec with every default filled in; the gateway makes it, nothing after it re-checks it. */
export interface JobSpec {
  readonly prompt: string;
  readonly negativePrompt: string;
  /** 0 to 2^53 - 1. */
  readonly seed: number;
  /** Pixels. */
  readonly width: number;
  readonly height: number;
  readonly seconds: number;
  readonly fps: number;
  readonly quality: QualityName;
  readonly steps: number;
  readonly guidance: number;
  /** Of steps below the boundary; absent: the same. */
  readonly guidanceLow?: number;
  /** Timestep from which on the first of two noise levels is used; absent: the model's. */
  readonly boundary?: number;
  /** Of the noise schedule; absent, as in jobs stored before it could be asked for: the model's. */
  readonly shift?: number;
  /** Files in the reference folder. */
  readonly initialNoise?: string;
  readonly saveLatents?: string;
  readonly saveFrames?: string;
  readonly grid?: string;
  readonly sampler: string;
  readonly colorCorrection: boolean;
  /** Name of the bundle. */
  readonly model: string;
}

export type JobStage = "queue" | "encode" | "denoise" | "decode" | "commit";

export interface JobProgress {
  readonly stage: JobStage;
  readonly step: number;
  readonly stepCount: number;
  /** 0 to 100. */
  readonly percent: number;
  readonly remainingSeconds?: number;
}

export interface StageTiming {
  readonly stage: JobStage;
  readonly seconds: number;
}

export interface JobRecord {
  /** UUID, lower case. */
  readonly id: string;
  readonly spec: JobSpec;
  readonly bundleDigest: string;
  readonly warnings: readonly string[];
  /** W3C trace context of the call that submitted it. */
  readonly traceparent?: string;
  readonly state: JobState;
  /** Times it was started; giving a job back with `release` does not count. */
  readonly attempt: number;
  readonly progress: JobProgress;
  readonly stageTimings: readonly StageTiming[];
  readonly createdAtMs: number;
  readonly tenant: string;
  readonly priority: JobPriority;
  /** By the wall clock of the process that took it; absent: none. */
  readonly deadlineAtMs?: number;
}

export interface SubmitOptions {
  /** Whose it is: letters, digits, "." "_" "-". Default "default". */
  readonly tenant?: string;
  /** Among the tenant's own jobs. Default "normal". */
  readonly priority?: JobPriority;
  /** Milliseconds from now after which the job fails with DEADLINE. Default: none. */
  readonly deadlineMs?: number;
  /** Makes submit idempotent together with tenant and requestDigest. */
  readonly requestId?: string;
  /** Digest of the body as the caller sent it. */
  readonly requestDigest?: string;
  readonly traceparent?: string;
  readonly bundleDigest?: string;
  readonly warnings?: readonly string[];
}

export interface Submission extends JobRecord {
  /** True when requestId named an earlier submit with the same body. */
  readonly repeated: boolean;
}

/** How much of finished jobs is kept; those that ended first go first, unfinished ones never. */
export interface Retention {
  readonly jobsMax: number;
  /** By the wall clock, since the job's end. */
  readonly ageMsMax: number;
  /** Of clips; the job that ended last stays however large its clip is. */
  readonly clipsBytesMax: number;
}

/** The right to write to a running job; `job` is the record as claimed. */
export interface Lease {
  readonly id: string;
  readonly token: number;
  readonly owner: string;
  readonly leaseMs: number;
  /** Time to the job's deadline when it was claimed, for the owner's monotonic clock; absent: none. */
  readonly remainingMs?: number;
  readonly job: JobRecord;
}

export interface LeaseAnswer {
  /** The owner stops at the next step and finishes with "cancelled". */
  readonly cancelRequested: boolean;
}

export type JobOutcome =
  | { readonly kind: "completed"; readonly artefact: ArtefactFacts }
  | { readonly kind: "failed"; readonly error: JobError }
  | { readonly kind: "cancelled" };

export interface JobEvent {
  /** Cursor: grows, never reused. */
  readonly sequence: number;
  readonly state: JobStateKind;
  readonly progress: JobProgress;
  readonly error?: JobError;
  /** PNG; only the newest preview of a job is kept. */
  readonly previewPng?: Uint8Array;
}

export interface ListOptions {
  readonly pageSize: number;
  readonly pageToken?: string;
  /** Only jobs that failed for no fault of their caller. Default false. */
  readonly deadOnly?: boolean;
}

export interface JobPage {
  readonly jobs: readonly JobRecord[];
  /** Empty: the end. */
  readonly nextPageToken: string;
}

/**
 * Every write with a lease throws MoevieError LEASE_LOST once another lease was given or the job ended or was deleted.
 * All calls throw DISK_FULL when there is no room and STORE_CORRUPT when the file fails its checks.
 */
export interface JobStore {
  /** Throws QUEUE_FULL at the bound, TENANT_QUEUE_FULL at the tenant's, and REQUEST_ID_REUSED for a used requestId with another body. */
  submit(spec: JobSpec, options?: SubmitOptions): Promise<Submission>;
  /** Throws VIDEO_NOT_FOUND. */
  get(id: string): Promise<JobRecord>;
  /** Newest first. Throws INVALID_FIELD for a token it did not make. */
  list(page: ListOptions): Promise<JobPage>;
  /** Takes the queued job whose turn it is (queue-order.ts), or null when none may run. Jobs whose owner died are queued again before that. */
  claimNext(claim: { readonly owner: string; readonly leaseMs: number }): Promise<Lease | null>;
  /** Ends every lease of an owner's earlier life at once, as if it had run out, and answers how many there were. */
  takeBack(owner: string): Promise<number>;
  renew(lease: Lease): Promise<LeaseAnswer>;
  /** Renews too, and appends an event. */
  writeProgress(lease: Lease, progress: JobProgress, stageTimings?: readonly StageTiming[]): Promise<LeaseAnswer>;
  /** An event with a preview picture, at the progress last written. Renews too. */
  appendEvent(lease: Lease, event: { readonly previewPng: Uint8Array }): Promise<LeaseAnswer>;
  /** Keeps the parts one after another as the newest checkpoint, at most checkpointBytesMax, beside the one before. They may not change meanwhile. */
  saveCheckpoint(lease: Lease, parts: readonly Uint8Array[]): Promise<LeaseAnswer>;
  /** The newest that is what was saved; null without one. Throws STORE_CORRUPT when none is. */
  loadCheckpoint(id: string): Promise<Uint8Array | null>;
  /** In order; at most eventsPerReadMax. `after` 0: from the beginning. Throws VIDEO_NOT_FOUND. */
  eventsAfter(id: string, after: number, eventsMax?: number): Promise<readonly JobEvent[]>;
  /** Queued: cancelled at once. Running: a flag its owner sees. Ended: nothing. Answers the record after it. */
  requestCancel(id: string): Promise<JobRecord>;
  /**
   * Queues a job again that failed for no fault of its caller, its attempts and its deadline counted anew. Throws VIDEO_NOT_DEAD, and what
   * submit throws of a full queue.
   */
  retry(id: string): Promise<JobRecord>;
  /** Ends the job, drops its checkpoint and makes the artefact of this lease visible when completed. */
  finish(lease: Lease, outcome: JobOutcome): Promise<JobRecord>;
  /** Gives the job back to the queue with its checkpoint, e.g. at drain. */
  release(lease: Lease): Promise<void>;
  /** Removes record, events, checkpoint and files; a running owner loses its lease. Throws VIDEO_NOT_FOUND. */
  delete(id: string): Promise<void>;
  counts(): Promise<Readonly<Record<JobStateKind, number>>>;
  /** Failed jobs that `retry` would take: none of them for a fault of its caller. */
  deadCount(): Promise<number>;
  /** Grows with every change by any process; read it before the records, then wait for more with it. */
  readonly changeCount: number;
  /** Resolves when changeCount is above `after`; rejects when the signal aborts or the store closes. */
  waitForChange(wait: { readonly after: number; readonly signal: AbortSignal }): Promise<void>;
  readonly artefacts: Artefacts;
  close(): Promise<void>;
}
