// Opens the SQLite file, checks it and brings its schema up. Turns SQLite's errors into the catalogue's; no queries of jobs here.
import { DatabaseSync, type StatementSync } from "node:sqlite";
import { MoevieError, limit } from "@moevie/contracts";

/** Each brings a file from the schema of its index to the next. */
export const SCHEMA_STEPS: readonly string[] = [
  `
CREATE TABLE jobs (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  request_id TEXT UNIQUE,
  request_digest TEXT,
  state TEXT NOT NULL,
  state_json TEXT NOT NULL,
  record_json TEXT NOT NULL,
  progress_json TEXT NOT NULL,
  timings_json TEXT NOT NULL,
  attempt INTEGER NOT NULL,
  token INTEGER NOT NULL,
  lease_ms INTEGER NOT NULL,
  lease_revision INTEGER NOT NULL
) STRICT;
CREATE INDEX jobs_by_state ON jobs (state, number);
CREATE TABLE events (
  sequence INTEGER PRIMARY KEY AUTOINCREMENT,
  job INTEGER NOT NULL REFERENCES jobs (number) ON DELETE CASCADE,
  body_json TEXT NOT NULL,
  preview BLOB
) STRICT;
CREATE INDEX events_by_job ON events (job, sequence);
CREATE TABLE checkpoints (
  job INTEGER PRIMARY KEY REFERENCES jobs (number) ON DELETE CASCADE,
  bytes BLOB NOT NULL
) STRICT;
`,
  // Checkpoints became files: jobs that have one of before begin again.
  `
DROP TABLE checkpoints;
CREATE TABLE checkpoints (
  job INTEGER PRIMARY KEY REFERENCES jobs (number) ON DELETE CASCADE,
  name TEXT NOT NULL,
  size_bytes INTEGER NOT NULL,
  sha256 TEXT NOT NULL
) STRICT;
`,
  `
ALTER TABLE jobs ADD COLUMN finished_at_ms INTEGER AS (state_json ->> '$.finishedAtMs') VIRTUAL;
ALTER TABLE jobs ADD COLUMN clip_bytes INTEGER AS (coalesce(state_json ->> '$.artefact.sizeBytes', 0)) VIRTUAL;
CREATE INDEX jobs_by_end ON jobs (finished_at_ms, clip_bytes, id) WHERE finished_at_ms IS NOT NULL;
`,
  // Two generations of checkpoints, in the order they were saved.
  `
CREATE TABLE kept_checkpoints (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  job INTEGER NOT NULL REFERENCES jobs (number) ON DELETE CASCADE,
  name TEXT NOT NULL,
  size_bytes INTEGER NOT NULL,
  sha256 TEXT NOT NULL
) STRICT;
INSERT INTO kept_checkpoints (job, name, size_bytes, sha256) SELECT job, name, size_bytes, sha256 FROM checkpoints;
DROP TABLE checkpoints;
ALTER TABLE kept_checkpoints RENAME TO checkpoints;
CREATE INDEX checkpoints_by_job ON checkpoints (job, number);
`,
  // Turns of tenants: a claim reads indexes and one row. Jobs of before are the default tenant's, in the order they came.
  `
ALTER TABLE jobs ADD COLUMN tenant TEXT AS (coalesce(record_json ->> '$.tenant', 'default')) VIRTUAL;
ALTER TABLE jobs ADD COLUMN turn_ms INTEGER AS (coalesce(record_json ->> '$.turnMs', record_json ->> '$.createdAtMs', 0)) VIRTUAL;
ALTER TABLE jobs ADD COLUMN deadline_at_ms INTEGER AS (record_json ->> '$.deadlineAtMs') VIRTUAL;
ALTER TABLE jobs ADD COLUMN begun INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN claim INTEGER;
ALTER TABLE jobs ADD COLUMN accounts_json TEXT;
UPDATE jobs SET begun = 1 WHERE state IN ('queued', 'running') AND attempt > 0;
CREATE INDEX jobs_by_turn ON jobs (tenant, turn_ms, number) WHERE state = 'queued';
CREATE INDEX jobs_begun ON jobs (number, tenant, turn_ms) WHERE state = 'queued' AND begun = 1;
CREATE INDEX jobs_running ON jobs (tenant) WHERE state = 'running';
CREATE INDEX jobs_by_claim ON jobs (claim) WHERE claim IS NOT NULL;
CREATE INDEX jobs_by_deadline ON jobs (deadline_at_ms) WHERE state = 'queued' AND deadline_at_ms IS NOT NULL;
`,
];

/** Opens or makes the file. Throws STORE_CORRUPT, DISK_FULL, CONFIG_INVALID (not writable) or UNSUPPORTED (newer schema). */
export function openDatabase(path: string, bytesMax: number): DatabaseSync {
  return translated(() => {
    const db = new DatabaseSync(path, { timeout: limit("storeBusyMsMax"), enableForeignKeyConstraints: true });
    try {
      prepare(db, path, bytesMax);
      keepStatements(db);
      return db;
    } catch (thrown) {
      db.close();
      throw thrown;
    }
  }, path);
}

function prepare(db: DatabaseSync, path: string, bytesMax: number): void {
  db.exec("PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;");
  const pageBytes = Number(db.prepare("PRAGMA page_size").get()?.["page_size"] ?? 4096);
  db.exec(`PRAGMA max_page_count = ${Math.max(1, Math.floor(bytesMax / pageBytes))}`);
  const check = db.prepare("PRAGMA quick_check(1)").get()?.["quick_check"];
  if (check !== "ok")
    throw new MoevieError(
      "STORE_CORRUPT",
      `${path} failed its integrity check (${String(check)}): see moevie store check.`,
      {
        detail: String(check),
      },
    );
  // The write lock first: two processes may open a new file at once.
  db.exec("BEGIN IMMEDIATE");
  try {
    const version = Number(db.prepare("PRAGMA user_version").get()?.["user_version"] ?? 0);
    if (version > SCHEMA_STEPS.length) {
      throw new MoevieError(
        "UNSUPPORTED",
        `The job store's file has schema ${version}; this build reads up to ${SCHEMA_STEPS.length}.`,
      );
    }
    for (const step of SCHEMA_STEPS.slice(version)) db.exec(step);
    db.exec(`PRAGMA user_version = ${SCHEMA_STEPS.length}`);
    db.exec("COMMIT");
  } catch (thrown) {
    if (db.isTransaction) db.exec("ROLLBACK");
    throw thrown;
  }
}

/** Compiles each query once: that of a claim takes longer to compile than to run. All queries are texts of this package, so they are few. */
function keepStatements(db: DatabaseSync): void {
  const compile = db.prepare.bind(db);
  const kept = new Map<string, StatementSync>();
  db.prepare = (sql) => {
    const statement = kept.get(sql) ?? compile(sql);
    kept.set(sql, statement);
    return statement;
  };
}

/** Primary result codes (sqlite.org/rescode.html). */
const SQLITE_BUSY = 5;
const SQLITE_READONLY = 8;
const SQLITE_IOERR = 10;
const SQLITE_CORRUPT = 11;
const SQLITE_FULL = 13;
const SQLITE_CANTOPEN = 14;
const SQLITE_NOTADB = 26;

/** Runs `work` and throws what SQLite reports as a MoevieError that says what an operator can do. */
export function translated<T>(work: () => T, path = "the job store's file"): T {
  try {
    return work();
  } catch (thrown) {
    throw translate(thrown, path);
  }
}

function translate(thrown: unknown, path: string): unknown {
  if (!(thrown instanceof Error) || !("errcode" in thrown) || typeof thrown.errcode !== "number") return thrown;
  const options = { cause: thrown, detail: `sqlite ${thrown.errcode}: ${thrown.message}` };
  switch (thrown.errcode & 0xff) {
    case SQLITE_BUSY:
      return new MoevieError("PEER_UNAVAILABLE", "The job store is busy; try again.", options);
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN:
      return new MoevieError(
        "CONFIG_INVALID",
        "The job store's folder or file cannot be written: see MOEVIE_DATA.",
        options,
      );
    case SQLITE_FULL:
      return new MoevieError("DISK_FULL", "There is no room left for the job store.", options);
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return new MoevieError(
        "STORE_CORRUPT",
        `${path} is not a sound SQLite database: see moevie store check.`,
        options,
      );
    case SQLITE_IOERR:
      return new MoevieError("INTERNAL", "The job store's file could not be read or written.", options);
    default:
      return thrown;
  }
}
