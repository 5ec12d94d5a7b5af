// Reads of the SQLite file that look at many jobs: pages, counts, leases, what is overdue and what is to go. No writes here.
import type { DatabaseSync } from "node:sqlite";
import { limit } from "@moevie/contracts";
import { COLUMNS, recordOf, type JobRow } from "./job-row.ts";
import { CALLERS_REASONS, JOB_STATE_KINDS, type JobStateKind } from "./job-state.ts";
import type { JobPage, Retention } from "./job-store.ts";
import type { LeaseSighting } from "./lease-watch.ts";
import { cursorOf, tokenOf } from "./page-token.ts";

const DEAD = `state = 'failed' AND state_json ->> '$.error.reason' NOT IN (${CALLERS_REASONS.map(() => "?").join(", ")})`;

/** Newest first. */
export function pageOf(db: DatabaseSync, pageSize: number, pageToken: string, deadOnly: boolean): JobPage {
  const before = pageToken === "" ? Number.MAX_SAFE_INTEGER : cursorOf(pageToken);
  const size = Math.min(Math.max(1, pageSize), limit("listPageSizeMax"));
  const which = deadOnly ? `number < ? AND ${DEAD}` : "number < ?";
  const query = db.prepare(`SELECT ${COLUMNS} FROM jobs WHERE ${which} ORDER BY number DESC LIMIT ?`);
  const rows = query.all(before, ...(deadOnly ? CALLERS_REASONS : []), size + 1) as unknown as JobRow[];
  const page = rows.slice(0, size);
  const last = page.at(-1);
  return {
    jobs: page.map(recordOf),
    nextPageToken: rows.length > size && last !== undefined ? tokenOf(last.number) : "",
  };
}

/** Ids of finished jobs beyond what is kept, a few at a time. */
export function finishedBeyond(
  db: DatabaseSync,
  { jobsMax, ageMsMax, clipsBytesMax }: Retention,
  nowMs: number,
): readonly string[] {
  const beyond = db.prepare(
    `SELECT id FROM (
       SELECT id, finished_at_ms, row_number() OVER newest AS place, sum(clip_bytes) OVER newest AS bytes
       FROM jobs WHERE finished_at_ms IS NOT NULL WINDOW newest AS (ORDER BY finished_at_ms DESC, id)
     ) WHERE place > ? OR finished_at_ms < ? OR (bytes > ? AND place > 1) ORDER BY place DESC LIMIT ?`,
  );
  const rows = beyond.all(jobsMax, nowMs - ageMsMax, clipsBytesMax, limit("finishedPerLookMax"));
  return rows.map((row) => String(row["id"]));
}

export function countsOf(db: DatabaseSync): Record<JobStateKind, number> {
  const counts = Object.fromEntries(JOB_STATE_KINDS.map((kind) => [kind, 0])) as Record<JobStateKind, number>;
  const rows = db.prepare("SELECT state, count(*) AS jobs FROM jobs GROUP BY state").all();
  for (const row of rows) counts[row["state"] as JobStateKind] = Number(row["jobs"]);
  return counts;
}

export function deadCountOf(db: DatabaseSync): number {
  const row = db.prepare(`SELECT count(*) AS jobs FROM jobs WHERE ${DEAD}`).get(...CALLERS_REASONS);
  return Number(row?.["jobs"]);
}

/** Every running job's lease. */
export function leasesOf(db: DatabaseSync): readonly LeaseSighting[] {
  const query = "SELECT number, token, lease_revision, lease_ms FROM jobs WHERE state = 'running'";
  return db
    .prepare(query)
    .all()
    .map((row) => ({
      number: Number(row["number"]),
      token: Number(row["token"]),
      revision: Number(row["lease_revision"]),
      leaseMs: Number(row["lease_ms"]),
    }));
}

/** Waiting jobs whose deadline is over at `nowMs`, to be seen so for deadlineToleranceMs. */
export function overdueOf(db: DatabaseSync, nowMs: number): readonly LeaseSighting[] {
  const query =
    "SELECT number, token FROM jobs WHERE state = 'queued' AND deadline_at_ms IS NOT NULL AND deadline_at_ms < ?";
  const leaseMs = limit("deadlineToleranceMs");
  const rows = db.prepare(query).all(nowMs);
  return rows.map((row) => ({ number: Number(row["number"]), token: Number(row["token"]), revision: 0, leaseMs }));
}
