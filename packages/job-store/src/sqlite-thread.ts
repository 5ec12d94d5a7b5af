// The store's thread: owns the SQLite connection, answers calls one after another, looks for changes by other processes, takes
// back jobs whose lease died and removes finished ones beyond what is kept. Started by sqlite-store.ts only.
import { parentPort, workerData } from "node:worker_threads";
import { performance } from "node:perf_hooks";
import type { DatabaseSync } from "node:sqlite";
import { asMoevieError, type MoevieErrorOptions, type Reason } from "@moevie/contracts";
import type { Retention } from "./job-store.ts";
import type { EndedJob } from "./ended-jobs.ts";
import { LeaseWatch } from "./lease-watch.ts";
import { takeBackup } from "./sqlite-backup.ts";
import type { TenantShares } from "./queue-order.ts";
import { SqliteRecords } from "./sqlite-records.ts";
import { openDatabase } from "./sqlite-schema.ts";

export interface ThreadData {
  readonly path: string;
  readonly queuedMax: number;
  readonly shares: TenantShares;
  readonly bytesMax: number;
  readonly retention: Retention | undefined;
  /** Pause between two copies of the file; 0: none are made. */
  readonly backupMs: number;
}

/** A MoevieError on its way between threads. */
export interface SentError extends MoevieErrorOptions {
  readonly reason: Reason;
  readonly message: string;
}

export interface ThreadCall {
  readonly call: number;
  readonly method: keyof SqliteRecords | "close";
  readonly values: readonly unknown[];
}

export type ThreadMessage =
  | { readonly kind: "opened" }
  | { readonly kind: "changed" }
  /** The store itself took a job's lease or removed the job: its files may be left over. */
  | { readonly kind: "taken"; readonly id: string }
  | { readonly kind: "ended"; readonly ended: EndedJob }
  /** Something an operator should look at. */
  | { readonly kind: "notice"; readonly line: string }
  | { readonly kind: "result"; readonly call: number; readonly value: unknown }
  | { readonly kind: "error"; readonly call: number; readonly error: SentError };

const POLL_MS = 25;
/** Pause between two looks for finished jobs that are to go. */
const RETENTION_LOOK_MS = 1000;
const OPEN_CALL = 0;

function sent(thrown: unknown): SentError {
  const { reason, message, detail, violations, retryAfterMs } = asMoevieError(thrown);
  return {
    reason,
    message,
    violations,
    ...(detail === undefined ? {} : { detail }),
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
  };
}

/** Copies of the file, as they fall due: every backupMs in which it changed. */
class Copies {
  readonly #db: DatabaseSync;
  readonly #records: SqliteRecords;
  readonly #data: ThreadData;
  readonly #onNotice: (line: string) => void;
  #dueMs: number;
  /** What the file's changes were at the last copy. */
  #copied = "";
  /** Settles with the copy under way; never rejects. */
  settled = Promise.resolve();

  constructor(db: DatabaseSync, records: SqliteRecords, data: ThreadData, onNotice: (line: string) => void) {
    this.#db = db;
    this.#records = records;
    this.#data = data;
    this.#onNotice = onNotice;
    this.#dueMs = data.backupMs === 0 ? Infinity : performance.now() + data.backupMs;
  }

  look(): void {
    if (performance.now() < this.#dueMs) return;
    this.#dueMs = performance.now() + this.#data.backupMs;
    const own = this.#db.prepare("SELECT total_changes() AS changes").get()?.["changes"];
    const changes = `${Number(own)}:${this.#records.dataVersion()}`;
    if (changes !== this.#copied) this.settled = this.settled.then(() => this.#take(changes));
  }

  async #take(changes: string): Promise<void> {
    try {
      await takeBackup(this.#db, this.#data.path, Date.now());
      this.#copied = changes;
    } catch (thrown) {
      this.#onNotice(`no copy of the job store was made, the earlier ones stay: ${asMoevieError(thrown).message}`);
    }
  }
}

function run(port: NonNullable<typeof parentPort>, data: ThreadData): void {
  const post = (message: ThreadMessage): void => port.postMessage(message, []);
  const db = openDatabase(data.path, data.bytesMax);
  const records = new SqliteRecords(db, () => Date.now(), data.queuedMax, data.shares);
  records.onEnded = (ended) => post({ kind: "ended", ended });
  const watch = new LeaseWatch();
  const deadlines = new LeaseWatch();
  const copies = new Copies(db, records, data, (line) => post({ kind: "notice", line }));
  let lookAtMs = performance.now();
  let version = records.dataVersion();
  const poll = setInterval(() => {
    try {
      const now = records.dataVersion();
      if (now !== version) post({ kind: "changed" });
      version = now;
      for (const dead of watch.observe(records.leases(), performance.now())) {
        const id = records.expire(dead);
        if (id !== undefined) post({ kind: "taken", id });
      }
      copies.look();
      const overdue = deadlines.observe(records.overdue(), performance.now());
      for (const job of overdue) records.lapse(job);
      if (overdue.length > 0) post({ kind: "changed" });
      if (data.retention === undefined || performance.now() < lookAtMs) return;
      lookAtMs = performance.now() + RETENTION_LOOK_MS;
      for (const id of records.removeFinished(data.retention)) post({ kind: "taken", id });
    } catch {
      // A busy or full store: calls report it, the next look tries again.
    }
  }, POLL_MS);
  port.on("message", ({ call, method, values }: ThreadCall) => {
    if (method === "close") {
      clearInterval(poll);
      void copies.settled.then(() => {
        db.close();
        port.close();
      });
      return;
    }
    try {
      const work = records[method] as (...values: unknown[]) => unknown;
      post({ kind: "result", call, value: work.apply(records, [...values]) });
    } catch (thrown) {
      post({ kind: "error", call, error: sent(thrown) });
    }
  });
  post({ kind: "opened" });
}

if (parentPort !== null) {
  try {
    run(parentPort, workerData as ThreadData);
  } catch (thrown) {
    parentPort.postMessage({ kind: "error", call: OPEN_CALL, error: sent(thrown) } satisfies ThreadMessage, []);
    parentPort.close();
  }
}
