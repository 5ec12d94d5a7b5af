// A job as the SQLite file holds it, and the record it stands for. Pure: no queries here.
import type { JobState } from "./job-state.ts";
import type { JobProgress, JobRecord, StageTiming } from "./job-store.ts";
import { DEFAULT_TENANT } from "./queue-order.ts";

export interface JobRow {
  readonly number: number;
  readonly id: string;
  readonly request_digest: string | null;
  readonly state_json: string;
  readonly record_json: string;
  readonly progress_json: string;
  readonly timings_json: string;
  readonly attempt: number;
  readonly token: number;
}

export const COLUMNS =
  "number, id, request_digest, state_json, record_json, progress_json, timings_json, attempt, token";

export function stateOf(row: JobRow): JobState {
  return JSON.parse(row.state_json) as JobState;
}

/** What jobs do not say that were stored when there was nothing else. */
const UNSAID = { quality: "standard", colorCorrection: true } as const;

/** What is fixed when the job is submitted, but for a retry that moves the deadline. */
export type FixedFacts = Pick<
  JobRecord,
  "spec" | "bundleDigest" | "warnings" | "traceparent" | "createdAtMs" | "tenant" | "priority" | "deadlineAtMs"
> & {
  /** For the index of the queue. */
  readonly turnMs: number;
};

export function recordOf(row: JobRow): JobRecord {
  const { turnMs: _turnMs, ...fixed } = JSON.parse(row.record_json) as FixedFacts;
  return {
    ...fixed,
    tenant: fixed.tenant ?? DEFAULT_TENANT,
    priority: fixed.priority ?? "normal",
    spec: { ...UNSAID, ...fixed.spec },
    id: row.id,
    state: stateOf(row),
    attempt: row.attempt,
    progress: JSON.parse(row.progress_json) as JobProgress,
    stageTimings: JSON.parse(row.timings_json) as StageTiming[],
  };
}
