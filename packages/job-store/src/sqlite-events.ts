// Events of a job in the SQLite file: appended with every change, at most eventsPerJobMax kept. Runs inside sqlite-records.ts.
import type { DatabaseSync } from "node:sqlite";
import { limit } from "@moevie/contracts";
import type { JobEvent, JobRecord } from "./job-store.ts";

export function addEvent(db: DatabaseSync, job: number, record: JobRecord, preview?: Uint8Array): void {
  const body = {
    state: record.state.kind,
    progress: record.progress,
    ...(record.state.kind === "failed" ? { error: record.state.error } : {}),
  };
  db.prepare("INSERT INTO events (job, body_json, preview) VALUES (?, ?, ?)").run(
    job,
    JSON.stringify(body),
    preview ?? null,
  );
  db.prepare(
    "DELETE FROM events WHERE job = ?1 AND sequence <= (SELECT sequence FROM events WHERE job = ?1 ORDER BY sequence DESC LIMIT 1 OFFSET ?2)",
  ).run(job, limit("eventsPerJobMax"));
}

export function readEvents(db: DatabaseSync, job: number, after: number, eventsMax: number): readonly JobEvent[] {
  const query = db.prepare(
    "SELECT sequence, body_json, preview FROM events WHERE job = ? AND sequence > ? ORDER BY sequence LIMIT ?",
  );
  return query.all(job, after, Math.min(eventsMax, limit("eventsPerReadMax"))).map((row) => ({
    ...(JSON.parse(String(row["body_json"])) as Omit<JobEvent, "sequence" | "previewPng">),
    sequence: Number(row["sequence"]),
    ...(row["preview"] instanceof Uint8Array ? { previewPng: row["preview"] } : {}),
  }));
}
