// The queries of the SQLite store: synchronous, each write one BEGIN IMMEDIATE transaction. Runs inside the store's thread only;
// the wall clock is passed in and decides nothing but which finished jobs are too old.
import { randomUUID } from "node:crypto";
import type { DatabaseSync } from "node:sqlite";
import { MoevieError, limit } from "@moevie/contracts";
import { artefactNames } from "./artefact-names.ts";
import type { CheckpointFacts } from "./checkpoint-file.ts";
import { endedBy, type EndedJob } from "./ended-jobs.ts";
import { held, isFinal, transition, type JobStateKind, type JobTransition } from "./job-state.ts";
import { COLUMNS, recordOf, stateOf, type FixedFacts, type JobRow } from "./job-row.ts";
import type { LeaseSighting } from "./lease-watch.ts";
import type {
  JobEvent,
  JobOutcome,
  JobPage,
  JobProgress,
  JobRecord,
  JobSpec,
  Lease,
  LeaseAnswer,
  Retention,
  StageTiming,
  Submission,
  SubmitOptions,
} from "./job-store.ts";
import { DEFAULT_TENANT, turnMs, type TenantShares } from "./queue-order.ts";
import { remaining, requestKeyOf } from "./queue-room.ts";
import { addEvent, readEvents } from "./sqlite-events.ts";
import { SqliteQueue } from "./sqlite-queue.ts";
import { countsOf, deadCountOf, finishedBeyond, leasesOf, overdueOf, pageOf } from "./sqlite-reads.ts";
import { translated } from "./sqlite-schema.ts";

/** What names a lease on the way to the thread. */
export interface LeaseKey {
  readonly id: string;
  readonly token: number;
}

export interface SavedCheckpoint {
  readonly answer: LeaseAnswer;
  /** File names of the checkpoints that are not kept any more. */
  readonly replaced: readonly string[];
}

export interface FilesNeeded {
  /** The clip and the checkpoints. */
  readonly names: readonly string[];
  /** Lease that holds the job: its files may be in the making. */
  readonly liveToken: number | undefined;
  /** No lease will be given any more. */
  readonly final: boolean;
}

/** A scheduler counts these itself. */
const OWNERS_ENDS: ReadonlySet<JobTransition["kind"]> = new Set(["complete", "fail", "stop"]);

function waiting({ steps }: JobSpec): JobProgress {
  return { stage: "queue", step: 0, stepCount: steps, percent: 0 };
}

export class SqliteRecords {
  readonly #db: DatabaseSync;
  readonly #wallClockMs: () => number;
  readonly #queue: SqliteQueue;
  /** Of this transaction. */
  readonly #ended: EndedJob[] = [];
  /** Hears of jobs that ended otherwise than by their owner's `finish`. */
  onEnded: (ended: EndedJob) => void = () => undefined;

  constructor(db: DatabaseSync, wallClockMs: () => number, queuedMax: number, shares: TenantShares) {
    this.#db = db;
    this.#wallClockMs = wallClockMs;
    this.#queue = new SqliteQueue(db, queuedMax, shares);
  }

  submit(spec: JobSpec, options: SubmitOptions): Submission {
    return this.#write(() => {
      const { bundleDigest = "", warnings = [], tenant = DEFAULT_TENANT, priority = "normal" } = options;
      const requestKey = options.requestId === undefined ? null : requestKeyOf(tenant, options.requestId);
      const earlier = requestKey === null ? undefined : this.#row("request_id = ?", requestKey);
      if (earlier !== undefined) {
        if (earlier.request_digest === (options.requestDigest ?? null)) return { ...recordOf(earlier), repeated: true };
        throw new MoevieError("REQUEST_ID_REUSED", "This request_id was used before with another body.");
      }
      this.#queue.checkRoom(tenant);
      const createdAtMs = this.#wallClockMs();
      const { traceparent, deadlineMs } = options;
      const record: FixedFacts = {
        spec,
        bundleDigest,
        warnings,
        ...(traceparent === undefined ? {} : { traceparent }),
        createdAtMs,
        tenant,
        priority,
        ...(deadlineMs === undefined ? {} : { deadlineAtMs: createdAtMs + deadlineMs }),
        turnMs: turnMs({ spec, priority, createdAtMs }),
      };
      const insert = this.#db.prepare(
        `INSERT INTO jobs (id, request_id, request_digest, state, state_json, record_json, progress_json, timings_json, attempt, token, lease_ms, lease_revision)
         VALUES (?, ?, ?, 'queued', '{"kind":"queued"}', ?, ?, '[]', 0, 0, 0, 0)`,
      );
      const id = randomUUID();
      insert.run(id, requestKey, options.requestDigest ?? null, JSON.stringify(record), JSON.stringify(waiting(spec)));
      const row = this.#existing(id);
      addEvent(this.#db, row.number, recordOf(row));
      return { ...recordOf(row), repeated: false };
    });
  }

  get(id: string): JobRecord {
    return translated(() => recordOf(this.#existing(id)));
  }

  list(pageSize: number, pageToken: string, deadOnly: boolean): JobPage {
    return translated(() => pageOf(this.#db, pageSize, pageToken, deadOnly));
  }

  claimNext(owner: string, leaseMs: number): Lease | null {
    // A look without the write lock: idle claimants do not hold each other up.
    if (translated(() => this.#queue.next()) === undefined) return null;
    return this.#write(() => {
      const next = this.#queue.next();
      if (next === undefined) return null;
      const row = this.#existing(next.id);
      const token = row.token + 1;
      this.#queue.charge(next, recordOf(row).spec);
      this.#db
        .prepare("UPDATE jobs SET attempt = attempt + 1, token = ?, lease_ms = ?, lease_revision = 0 WHERE number = ?")
        .run(token, leaseMs, row.number);
      const atMs = this.#wallClockMs();
      const job = this.#move(this.#existing(row.id), { kind: "claim", owner, token, atMs });
      return { id: row.id, token, owner, leaseMs, ...remaining(job, atMs), job };
    });
  }

  renew(lease: LeaseKey): LeaseAnswer {
    return this.#write(() => this.#renewed(lease).answer);
  }

  writeProgress(lease: LeaseKey, progress: JobProgress, stageTimings?: readonly StageTiming[]): LeaseAnswer {
    return this.#write(() => {
      const { row, answer } = this.#renewed(lease);
      this.#db.prepare("UPDATE jobs SET progress_json = ? WHERE number = ?").run(JSON.stringify(progress), row.number);
      if (stageTimings !== undefined) {
        this.#db
          .prepare("UPDATE jobs SET timings_json = ? WHERE number = ?")
          .run(JSON.stringify(stageTimings), row.number);
      }
      addEvent(this.#db, row.number, { ...recordOf(row), progress });
      return answer;
    });
  }

  appendEvent(lease: LeaseKey, previewPng: Uint8Array): LeaseAnswer {
    return this.#write(() => {
      const { row, answer } = this.#renewed(lease);
      this.#db.prepare("UPDATE events SET preview = NULL WHERE job = ? AND preview IS NOT NULL").run(row.number);
      addEvent(this.#db, row.number, recordOf(row), previewPng);
      return answer;
    });
  }

  saveCheckpoint(lease: LeaseKey, { name, sizeBytes, sha256 }: CheckpointFacts): SavedCheckpoint {
    return this.#write(() => {
      const { row, answer } = this.#renewed(lease);
      const replaced = this.checkpoints(lease.id)
        .slice(limit("checkpointGenerationsMax") - 1)
        .map((old) => old.name);
      this.#db
        .prepare("INSERT INTO checkpoints (job, name, size_bytes, sha256) VALUES (?, ?, ?, ?)")
        .run(row.number, name, sizeBytes, sha256);
      const remove = this.#db.prepare("DELETE FROM checkpoints WHERE job = ? AND name = ?");
      for (const old of replaced) remove.run(row.number, old);
      return { answer, replaced };
    });
  }

  /** Newest first. */
  checkpoints(id: string): readonly CheckpointFacts[] {
    return translated(() => {
      const query = `SELECT name, size_bytes AS sizeBytes, checkpoints.sha256 FROM checkpoints
        JOIN jobs ON jobs.number = checkpoints.job WHERE jobs.id = ? ORDER BY checkpoints.number DESC`;
      return this.#db.prepare(query).all(id) as unknown as readonly CheckpointFacts[];
    });
  }

  eventsAfter(id: string, after: number, eventsMax: number): readonly JobEvent[] {
    return translated(() => {
      const { number } = this.#existing(id);
      return readEvents(this.#db, number, after, eventsMax);
    });
  }

  requestCancel(id: string): JobRecord {
    return this.#write(() => {
      const row = this.#existing(id);
      const state = stateOf(row);
      if (isFinal(state) || (state.kind === "running" && state.cancelRequested)) return recordOf(row);
      return this.#move(row, { kind: "cancel", atMs: this.#wallClockMs() });
    });
  }

  retry(id: string): JobRecord {
    return this.#write(() => {
      const row = this.#existing(id);
      const { spec, createdAtMs, deadlineAtMs, tenant } = recordOf(row);
      transition(stateOf(row), { kind: "retry" });
      this.#queue.checkRoom(tenant);
      const again = this.#db.prepare(
        `UPDATE jobs SET attempt = 0, begun = 0, progress_json = ?, timings_json = '[]',
           record_json = CASE WHEN ?2 IS NULL THEN record_json ELSE json_set(record_json, '$.deadlineAtMs', ?2) END WHERE number = ?3`,
      );
      const deadline = deadlineAtMs === undefined ? null : this.#wallClockMs() + deadlineAtMs - createdAtMs;
      again.run(JSON.stringify(waiting(spec)), deadline, row.number);
      return this.#move(this.#existing(id), { kind: "retry" });
    });
  }

  /** Waiting jobs whose deadline is over by the wall clock. */
  overdue(): readonly LeaseSighting[] {
    return translated(() => overdueOf(this.#db, this.#wallClockMs()));
  }

  /** Ends a job that still waits after its deadline. */
  lapse({ number, token }: LeaseSighting): void {
    this.#write(() => {
      const row = this.#row("number = ? AND state = 'queued' AND token = ?", number, token);
      if (row !== undefined) this.#move(row, { kind: "lapse", atMs: this.#wallClockMs() });
    });
  }

  finish(lease: LeaseKey, outcome: JobOutcome): JobRecord {
    return this.#write(() => {
      const { row } = this.#heldRow(lease);
      const base = { token: lease.token, atMs: this.#wallClockMs() };
      if (outcome.kind === "completed") {
        const progress: JobProgress = { ...recordOf(row).progress, stage: "commit", percent: 100, remainingSeconds: 0 };
        this.#db
          .prepare("UPDATE jobs SET progress_json = ? WHERE number = ?")
          .run(JSON.stringify(progress), row.number);
        return this.#move(this.#existing(row.id), { kind: "complete", ...base, artefact: outcome.artefact });
      }
      return this.#move(
        row,
        outcome.kind === "failed" ? { kind: "fail", ...base, error: outcome.error } : { kind: "stop", ...base },
      );
    });
  }

  release(lease: LeaseKey): void {
    this.#write(() => {
      const { row } = this.#heldRow(lease);
      this.#db.prepare("UPDATE jobs SET attempt = attempt - 1 WHERE number = ?").run(row.number);
      this.#move(this.#existing(row.id), { kind: "release", token: lease.token, atMs: this.#wallClockMs() });
    });
  }

  delete(id: string): void {
    this.get(id);
    this.#remove([id]);
  }

  /** Removes finished jobs beyond `kept`, a few at a time, and answers their ids. */
  removeFinished(kept: Retention): readonly string[] {
    const ids = translated(() => finishedBeyond(this.#db, kept, this.#wallClockMs()));
    if (ids.length > 0) this.#remove(ids);
    return ids;
  }

  counts(): Record<JobStateKind, number> {
    return translated(() => countsOf(this.#db));
  }

  deadCount(): number {
    return translated(() => deadCountOf(this.#db));
  }

  /** Which files of each job its record still needs. */
  filesNeeded(ids: readonly string[]): readonly FilesNeeded[] {
    return translated(() =>
      ids.map((id) => {
        const row = this.#row("id = ?", id);
        const state = row && stateOf(row);
        return {
          names: [
            ...(state?.kind === "completed" ? artefactNames(state.token) : []),
            ...this.checkpoints(id).map(({ name }) => name),
          ],
          liveToken: state?.kind === "running" ? state.token : undefined,
          final: state === undefined || isFinal(state),
        };
      }),
    );
  }

  /** Every running job's lease, for the observer. */
  leases(): readonly LeaseSighting[] {
    return translated(() => leasesOf(this.#db));
  }

  /** Takes a dead lease's job back and answers its id; undefined when its owner wrote after all. */
  expire(dead: LeaseSighting): string | undefined {
    return this.#write(() => {
      const row = this.#row(
        "number = ? AND state = 'running' AND token = ? AND lease_revision = ?",
        dead.number,
        dead.token,
        dead.revision,
      );
      if (row === undefined) return undefined;
      return this.#expire(row);
    });
  }

  /** Takes back all jobs of `owner` and answers their ids. */
  takeBack(owner: string): readonly string[] {
    return this.#write(() => {
      const where = "state = 'running' AND state_json ->> '$.owner' = ?";
      const rows = this.#db.prepare(`SELECT ${COLUMNS} FROM jobs WHERE ${where}`).all(owner) as unknown as JobRow[];
      return rows.map((row) => this.#expire(row));
    });
  }

  /** Changes when another connection commits. */
  dataVersion(): number {
    return translated(() => Number(this.#db.prepare("PRAGMA data_version").get()?.["data_version"]));
  }

  #remove(ids: readonly string[]): void {
    const remove = (): void => {
      const query = this.#db.prepare("DELETE FROM jobs WHERE id = ?");
      for (const id of ids) query.run(id);
    };
    this.#write(() => this.#queue.keepAccounts(remove));
    translated(() => this.#db.exec("PRAGMA incremental_vacuum"));
  }

  #write<T>(work: () => T): T {
    return translated(() => {
      this.#db.exec("BEGIN IMMEDIATE");
      try {
        const result = work();
        this.#db.exec("COMMIT");
        for (const ended of this.#ended.splice(0)) this.onEnded(ended);
        return result;
      } catch (thrown) {
        this.#ended.length = 0;
        if (this.#db.isTransaction) this.#db.exec("ROLLBACK");
        throw thrown;
      }
    });
  }

  #expire(row: JobRow): string {
    return this.#move(row, { kind: "expire", attempt: row.attempt, atMs: this.#wallClockMs() }).id;
  }

  #move(row: JobRow, event: JobTransition): JobRecord {
    const before = stateOf(row);
    const state = transition(before, event);
    const ended = OWNERS_ENDS.has(event.kind) ? undefined : endedBy(before, state);
    if (ended !== undefined) this.#ended.push(ended);
    this.#db
      .prepare("UPDATE jobs SET state = ?, state_json = ? WHERE number = ?")
      .run(state.kind, JSON.stringify(state), row.number);
    if (isFinal(state)) this.#db.prepare("DELETE FROM checkpoints WHERE job = ?").run(row.number);
    const record = recordOf(this.#existing(row.id));
    addEvent(this.#db, row.number, record);
    return record;
  }

  #renewed(lease: LeaseKey): { readonly row: JobRow; readonly answer: LeaseAnswer } {
    const { row, cancelRequested } = this.#heldRow(lease);
    this.#db.prepare("UPDATE jobs SET lease_revision = lease_revision + 1 WHERE number = ?").run(row.number);
    return { row, answer: { cancelRequested } };
  }

  #heldRow(lease: LeaseKey): { readonly row: JobRow; readonly cancelRequested: boolean } {
    const row = this.#row("id = ?", lease.id);
    if (row === undefined) throw new MoevieError("LEASE_LOST", "The job was deleted.");
    return { row, cancelRequested: held(stateOf(row), lease.token).cancelRequested };
  }

  #existing(id: string): JobRow {
    const row = this.#row("id = ?", id);
    if (row === undefined) throw new MoevieError("VIDEO_NOT_FOUND", `There is no videos/${id}, or it was deleted.`);
    return row;
  }

  #row(where: string, ...values: (string | number)[]): JobRow | undefined {
    return this.#db.prepare(`SELECT ${COLUMNS} FROM jobs WHERE ${where}`).get(...values) as unknown as
      | JobRow
      | undefined;
  }
}
