// The store's thread: owns the SQLite connection, hands calls to its keeper, has it look again and again, and makes copies of the file.
// Started by sqlite-store.ts only.
import { parentPort, workerData } from "node:worker_threads";
import { performance } from "node:perf_hooks";
import type { DatabaseSync } from "node:sqlite";
import { asMoevieError } from "@moevie/contracts";
import type { Retention } from "./job-store.ts";
import { takeBackup } from "./sqlite-backup.ts";
import type { TenantShares } from "./queue-order.ts";
import { LOOK_MS, SqliteKeeper, sent, type KeeperCall, type KeeperMessage } from "./sqlite-keeper.ts";
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

export type ThreadCall = KeeperCall | { readonly method: "close" };

const OPEN_CALL = 0;

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
    this.settled = this.settled.then(() => this.#takeIfChanged());
  }

  async #takeIfChanged(): Promise<void> {
    try {
      const own = this.#db.prepare("SELECT total_changes() AS changes").get()?.["changes"];
      const changes = `${Number(own)}:${this.#records.dataVersion()}`;
      if (changes === this.#copied) return;
      await takeBackup(this.#db, this.#data.path, Date.now());
      this.#copied = changes;
    } catch (thrown) {
      this.#onNotice(`no copy of the job store was made, the earlier ones stay: ${asMoevieError(thrown).message}`);
    }
  }
}

function run(port: NonNullable<typeof parentPort>, data: ThreadData): void {
  const post = (message: KeeperMessage): void => port.postMessage(message, []);
  const db = openDatabase(data.path, data.bytesMax);
  const records = new SqliteRecords(db, () => Date.now(), data.queuedMax, data.shares);
  const keeper = new SqliteKeeper({ records, retention: data.retention, monotonicMs: () => performance.now(), post });
  const copies = new Copies(db, records, data, (line) => post({ kind: "notice", line }));
  const looks = setInterval(() => {
    keeper.look();
    copies.look();
  }, LOOK_MS);
  port.on("message", (call: ThreadCall) => {
    if (call.method !== "close") return keeper.answer(call);
    clearInterval(looks);
    void copies.settled.then(() => {
      db.close();
      port.close();
    });
  });
  post({ kind: "opened" });
}

if (parentPort !== null) {
  try {
    run(parentPort, workerData as ThreadData);
  } catch (thrown) {
    parentPort.postMessage({ kind: "error", call: OPEN_CALL, error: sent(thrown) } satisfies KeeperMessage, []);
    parentPort.close();
  }
}
