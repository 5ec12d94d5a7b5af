// The ends of jobs in the metrics, whoever wrote them: the scheduler that held the job, or a store by itself or for a caller.
import type { Reason } from "@moevie/contracts";
import type { Metrics } from "@moevie/runtime";
import type { JobState } from "./job-state.ts";

/** How a job ended, and from where. */
export interface EndedJob {
  readonly from: "queued" | "running";
  readonly outcome: "completed" | "failed" | "cancelled";
  /** Of a failure; else empty. */
  readonly reason: Reason | "";
}

/** What a step from one state to the next ended; undefined where the job goes on, or had ended before. */
export function endedBy(before: JobState, after: JobState): EndedJob | undefined {
  if (before.kind !== "queued" && before.kind !== "running") return undefined;
  if (after.kind === "queued" || after.kind === "running") return undefined;
  return { from: before.kind, outcome: after.kind, reason: after.kind === "failed" ? after.error.reason : "" };
}

export function countEnd(metrics: Metrics, { from, outcome, reason }: EndedJob): void {
  metrics.add("moevie_jobs_finished_total", { outcome, reason });
  if (reason === "DEADLINE") metrics.add("moevie_jobs_lapsed_total", { state: from });
}

/** Series that boards and alerts look at must exist before their first event. */
export function declareEnds(metrics: Metrics): void {
  const outcomes = ["completed", "failed", "cancelled"];
  metrics.declare(
    "moevie_jobs_finished_total",
    outcomes.map((outcome) => ({ outcome, reason: "" })),
  );
  metrics.declare("moevie_jobs_lapsed_total", [{ state: "queued" }, { state: "running" }]);
}
