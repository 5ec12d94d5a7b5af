// A job's record as the public API shows it. Pure.
import {
  ERRORS,
  ERROR_DOMAIN,
  GRPC_CODE,
  PRIORITIES,
  QUALITIES,
  type AnyMessage,
  type Artefact,
  type Operation,
  type Timestamp,
  type Video,
  type VideoEvent,
  type VideoMetadata,
  type VideoProgress,
  type VideoSpec,
  type VideoStage,
  type VideoState,
} from "@moevie/contracts";
import {
  isFinal,
  type JobEvent,
  type JobProgress,
  type JobRecord,
  type JobSpec,
  type JobStage,
  type JobStateKind,
} from "@moevie/job-store";
import type { Loose } from "@moevie/runtime";
import type { ValidVideoSpec } from "./valid-video-spec.ts";

const STATE: Readonly<Record<JobStateKind, VideoState>> = {
  queued: "VIDEO_STATE_QUEUED",
  running: "VIDEO_STATE_RUNNING",
  completed: "VIDEO_STATE_COMPLETED",
  failed: "VIDEO_STATE_FAILED",
  cancelled: "VIDEO_STATE_CANCELLED",
};
const STAGE: Readonly<Record<JobStage, VideoStage>> = {
  queue: "VIDEO_STAGE_QUEUE",
  encode: "VIDEO_STAGE_ENCODE",
  denoise: "VIDEO_STAGE_DENOISE",
  decode: "VIDEO_STAGE_DECODE",
  commit: "VIDEO_STAGE_COMMIT",
};

/** Milliseconds since 1970 as google.protobuf.Timestamp. */
function timestamp(ms: number | undefined): Timestamp | null {
  if (ms === undefined) return null;
  const seconds = Math.floor(ms / 1000);
  return { seconds, nanos: Math.round((ms - seconds * 1000) * 1e6) };
}

function progressMessage(progress: JobProgress): VideoProgress {
  const { stage, step, stepCount, percent, remainingSeconds } = progress;
  return {
    stage: STAGE[stage],
    step,
    stepCount,
    percent,
    ...(remainingSeconds === undefined ? {} : { remainingSeconds }),
  };
}

/** The video of a record. */
export function videoMessage(job: JobRecord): Loose<Video> {
  const { id, spec, state } = job;
  return {
    name: `videos/${id}`,
    spec: specMessage(spec),
    state: STATE[state.kind],
    progress: progressMessage(job.progress),
    stageTimings: job.stageTimings.map(({ stage, seconds }) => ({ stage: STAGE[stage], seconds })),
    createTime: timestamp(job.createdAtMs),
    startTime: timestamp("startedAtMs" in state ? state.startedAtMs : undefined),
    finishTime: timestamp("finishedAtMs" in state ? state.finishedAtMs : undefined),
    error: state.kind === "failed" ? state.error : null,
    artefact: state.kind === "completed" ? (state.artefact satisfies Artefact) : null,
    bundleDigest: job.bundleDigest,
    attempt: job.attempt,
    warnings: [...job.warnings],
    tenant: job.tenant,
    priority: PRIORITIES[job.priority],
    deadlineTime: timestamp(job.deadlineAtMs),
  };
}

function specMessage({ width, height, quality, ...rest }: JobSpec): Loose<VideoSpec> {
  return { ...rest, size: `${width}x${height}`, quality: QUALITIES[quality] };
}

/** A done operation for a spec that was only checked: no job, so no name. */
export function checkedOperation({ spec, warnings }: ValidVideoSpec): Loose<Operation> {
  const video: Record<string, unknown> & { "@type": string } = {
    "@type": "type.googleapis.com/moevie.v1.Video",
    spec: specMessage(spec),
    warnings: [...warnings],
  };
  return { name: "", done: true, response: video as Loose<AnyMessage> };
}

/** The long-running operation of a record: metadata while it runs, the video or the error when it ended. */
export function operationMessage(job: JobRecord): Loose<Operation> {
  const metadata = {
    "@type": "type.googleapis.com/moevie.v1.VideoMetadata",
    video: `videos/${job.id}`,
    state: STATE[job.state.kind],
    progress: progressMessage(job.progress),
  } satisfies { "@type": string } & VideoMetadata;
  const operation = { name: `operations/${job.id}`, metadata, done: isFinal(job.state) };
  if (job.state.kind === "completed") {
    const response: Record<string, unknown> & { "@type": string } = {
      "@type": "type.googleapis.com/moevie.v1.Video",
      ...videoMessage(job),
    };
    return { ...operation, response: response as Loose<AnyMessage> };
  }
  return isFinal(job.state) ? { ...operation, error: errorStatus(job) } : operation;
}

/** google.rpc.Status of a job that ended without a clip. */
function errorStatus({ state }: JobRecord): object {
  const error =
    state.kind === "failed" ? state.error : { reason: "CANCELLED" as const, message: "The video was cancelled." };
  const info = { "@type": "type.googleapis.com/google.rpc.ErrorInfo", reason: error.reason, domain: ERROR_DOMAIN };
  return { code: GRPC_CODE[ERRORS[error.reason].code], message: error.message, details: [info] };
}

/** An event of the store as the watch stream sends it. */
export function eventMessage(event: JobEvent): Loose<VideoEvent> {
  return {
    cursor: String(event.sequence),
    heartbeat: false,
    state: STATE[event.state],
    progress: progressMessage(event.progress),
    previewPng: event.previewPng === undefined ? Buffer.alloc(0) : Buffer.from(event.previewPng),
    error: event.error ?? null,
  };
}

/** A sign of life between events. */
export function heartbeatMessage(state: JobStateKind): Loose<VideoEvent> {
  return { cursor: "", heartbeat: true, state: STATE[state] };
}
