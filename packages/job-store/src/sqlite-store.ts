// The job store on one SQLite file shared by processes: every call runs in a thread of its own, so that no disk holds up a stream.
import { mkdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { Worker } from "node:worker_threads";
import { MoevieError, limit } from "@moevie/contracts";
import { FileArtefacts, diskError } from "./artefacts.ts";
import { bounded } from "./bounded.ts";
import { ChangeSignal } from "./change-signal.ts";
import { newestSound, readCheckpoint, writeCheckpoint } from "./checkpoint-file.ts";
import type { EndedJob } from "./ended-jobs.ts";
import type { JobStateKind } from "./job-state.ts";
import type {
  JobEvent,
  JobOutcome,
  JobPage,
  JobProgress,
  JobRecord,
  JobSpec,
  JobStore,
  Lease,
  LeaseAnswer,
  ListOptions,
  Retention,
  StageTiming,
  Submission,
  SubmitOptions,
} from "./job-store.ts";
import { EQUAL_SHARES, type TenantShares } from "./queue-order.ts";
import type { FilesNeeded, LeaseKey, SqliteRecords } from "./sqlite-records.ts";
import type { SentError, ThreadCall, ThreadData, ThreadMessage } from "./sqlite-thread.ts";

export interface SqliteStoreOptions {
  /** Jobs that may wait. Default jobsQueuedMax. */
  readonly queuedMax?: number;
  /** What tenants are granted. Default: all the same. */
  readonly shares?: TenantShares;
  /** Largest size of the file. Default storeBytesMax. */
  readonly bytesMax?: number;
  /** What is kept of finished jobs. Default: all. */
  readonly retention?: Retention;
  /** Pause between two copies of the file, made when it changed. Default: none are made. */
  readonly backupMs?: number;
  /** Hears of each job whose end this opener wrote otherwise than by `finish`. */
  readonly onEnded?: (ended: EndedJob) => void;
  /** Hears, a line each, of copies that could not be made. */
  readonly onNotice?: (line: string) => void;
  /** Folder of clips and checkpoints. Default: artefacts/ beside the file. */
  readonly artefactsFolder?: string;
}

/** Its files are files: tests lay hands on them. */
export type SqliteJobStore = JobStore & { readonly artefacts: FileArtefacts };

interface Pending {
  readonly resolve: (value: never) => void;
  readonly reject: (error: Error) => void;
}

/** Opens or makes the store. Throws STORE_CORRUPT, DISK_FULL, CONFIG_INVALID or UNSUPPORTED. */
export async function openSqliteStore(path: string, options: SqliteStoreOptions = {}): Promise<SqliteJobStore> {
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  } catch (thrown) {
    throw diskError(thrown);
  }
  const thread = await StoreThread.open({
    path,
    queuedMax: options.queuedMax ?? limit("jobsQueuedMax"),
    shares: options.shares ?? EQUAL_SHARES,
    bytesMax: options.bytesMax ?? limit("storeBytesMax"),
    retention: options.retention,
    backupMs: options.backupMs ?? 0,
  });
  if (options.onEnded !== undefined) thread.onEnded = options.onEnded;
  if (options.onNotice !== undefined) thread.onNotice = options.onNotice;
  const artefacts = new FileArtefacts(options.artefactsFolder ?? join(dirname(path), "artefacts"));
  const store = new SqliteStore(thread, artefacts);
  await store.tidy(await artefacts.ids());
  return store;
}

type Method = keyof SqliteRecords;

/** Calls into the thread; one owner of the pending ones. */
class StoreThread {
  readonly #thread: Worker;
  readonly #pending = new Map<number, Pending>();
  readonly changes = new ChangeSignal();
  #calls = 0;
  #ended: Error | undefined;
  /** Hears of jobs whose lease the store took or that it removed, and says that they changed. */
  onTaken: (id: string) => void = () => undefined;

  onEnded: (ended: EndedJob) => void = () => undefined;
  onNotice: (line: string) => void = () => undefined;

  constructor(data: ThreadData) {
    const file = import.meta.url.endsWith(".ts") ? "./sqlite-thread.ts" : "./sqlite-thread.js";
    this.#thread = new Worker(new URL(file, import.meta.url), { workerData: data, name: "job-store", execArgv: [] });
    this.#thread.on("message", (message: ThreadMessage) => this.#receive(message));
    this.#thread.on("error", (cause) =>
      this.#end(new MoevieError("INTERNAL", "The job store's thread failed.", { cause })),
    );
    this.#thread.on("exit", () => this.#end(new MoevieError("DRAINING", "The job store is closed.")));
  }

  static async open(data: ThreadData): Promise<StoreThread> {
    const thread = new StoreThread(data);
    await new Promise<void>((resolve, reject) =>
      thread.#pending.set(0, { resolve: resolve as Pending["resolve"], reject }),
    );
    return thread;
  }

  call<K extends Method>(method: K, ...values: Parameters<SqliteRecords[K]>): Promise<ReturnType<SqliteRecords[K]>> {
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    if (this.#pending.size >= limit("storeCallsInFlightMax"))
      return Promise.reject(new MoevieError("PEER_UNAVAILABLE", "Too many calls wait for the job store."));
    const call = ++this.#calls;
    return new Promise((resolve, reject) => {
      this.#pending.set(call, { resolve, reject });
      this.#thread.postMessage({ call, method, values } satisfies ThreadCall, []);
    });
  }

  /** A call that changes records: waiters of this process hear of it at once. */
  async write<K extends Method>(
    method: K,
    ...values: Parameters<SqliteRecords[K]>
  ): Promise<ReturnType<SqliteRecords[K]>> {
    const result = await this.call(method, ...values);
    this.changes.changed();
    return result;
  }

  async close(): Promise<void> {
    if (this.#ended !== undefined) return;
    const exited = new Promise<void>((resolve) => this.#thread.once("exit", () => resolve()));
    this.#thread.postMessage({ call: 0, method: "close", values: [] } satisfies ThreadCall, []);
    await exited;
  }

  #receive(message: ThreadMessage): void {
    if (message.kind === "changed") return this.changes.changed();
    if (message.kind === "taken") return this.onTaken(message.id);
    if (message.kind === "ended") return this.onEnded(message.ended);
    if (message.kind === "notice") return this.onNotice(message.line);
    const call = message.kind === "opened" ? 0 : message.call;
    const pending = this.#pending.get(call);
    this.#pending.delete(call);
    if (message.kind === "error") pending?.reject(received(message.error));
    else pending?.resolve((message.kind === "result" ? message.value : undefined) as never);
  }

  #end(error: Error): void {
    this.#ended ??= error;
    for (const { reject } of this.#pending.values()) reject(this.#ended);
    this.#pending.clear();
    this.changes.end(this.#ended);
  }
}

function received({ reason, message, ...options }: SentError): MoevieError {
  return new MoevieError(reason, message, options);
}

class SqliteStore implements JobStore {
  readonly artefacts: FileArtefacts;
  readonly #thread: StoreThread;
  #tidied: Promise<void> = Promise.resolve();
  #checkpoints = 0;

  constructor(thread: StoreThread, artefacts: FileArtefacts) {
    this.#thread = thread;
    this.artefacts = artefacts;
    thread.onTaken = (id) => void this.tidy([id]).then(() => thread.changes.changed());
  }

  /** Removes files of jobs that their records do not need. Never rejects: what stays goes when the store opens next. */
  tidy(ids: readonly string[]): Promise<void> {
    const work = async (): Promise<void> => {
      // Files first, records after: a file in this look whose lease does not hold the job then can never be needed again.
      const names = await Promise.all(ids.map((id) => this.artefacts.names(id)));
      const needed = await this.#thread.call("filesNeeded", ids);
      await Promise.all(needed.map((job, at) => removeUnneeded(this.artefacts, ids[at] ?? "", names[at] ?? [], job)));
    };
    this.#tidied = this.#tidied.then(work).catch(() => undefined);
    return this.#tidied;
  }

  get changeCount(): number {
    return this.#thread.changes.count;
  }

  submit(spec: JobSpec, options: SubmitOptions = {}): Promise<Submission> {
    return this.#thread.write("submit", spec, options);
  }

  get(id: string): Promise<JobRecord> {
    return this.#thread.call("get", id);
  }

  list({ pageSize, pageToken = "", deadOnly = false }: ListOptions): Promise<JobPage> {
    return this.#thread.call("list", pageSize, pageToken, deadOnly);
  }

  async claimNext(claim: { readonly owner: string; readonly leaseMs: number }): Promise<Lease | null> {
    const lease = await this.#thread.call("claimNext", claim.owner, claim.leaseMs);
    if (lease !== null) this.#thread.changes.changed();
    return lease;
  }

  async takeBack(owner: string): Promise<number> {
    const ids = await this.#thread.write("takeBack", owner);
    await this.tidy(ids);
    return ids.length;
  }

  renew(lease: Lease): Promise<LeaseAnswer> {
    return this.#thread.call("renew", keyOf(lease));
  }

  writeProgress(lease: Lease, progress: JobProgress, stageTimings?: readonly StageTiming[]): Promise<LeaseAnswer> {
    return this.#thread.write("writeProgress", keyOf(lease), progress, stageTimings);
  }

  async appendEvent(lease: Lease, event: { readonly previewPng: Uint8Array }): Promise<LeaseAnswer> {
    bounded("preview", event.previewPng.byteLength, limit("previewBytesMax"));
    return await this.#thread.write("appendEvent", keyOf(lease), event.previewPng);
  }

  async saveCheckpoint(lease: Lease, parts: readonly Uint8Array[]): Promise<LeaseAnswer> {
    const sizeBytes = parts.reduce((sum, part) => sum + part.byteLength, 0);
    bounded("checkpoint", sizeBytes, limit("checkpointBytesMax"));
    const { id, token } = lease;
    const name = `${token}-${++this.#checkpoints}.checkpoint`;
    let unneeded: readonly string[] = [name];
    try {
      const sha256 = await writeCheckpoint(await this.artefacts.place(id, name), parts);
      const saved = await this.#thread.call("saveCheckpoint", keyOf(lease), { name, sizeBytes, sha256 });
      unneeded = saved.replaced;
      return saved.answer;
    } catch (thrown) {
      // The folder goes with the job: a lost lease is told as such.
      await this.renew(lease);
      throw thrown;
    } finally {
      await this.artefacts.remove(id, unneeded);
    }
  }

  async loadCheckpoint(id: string): Promise<Uint8Array | null> {
    const kept = await this.#thread.call("checkpoints", id);
    return await newestSound(kept, (facts) => readCheckpoint(this.artefacts.path(id, facts.name), facts));
  }

  eventsAfter(id: string, after: number, eventsMax: number = limit("eventsPerReadMax")): Promise<readonly JobEvent[]> {
    return this.#thread.call("eventsAfter", id, after, eventsMax);
  }

  async requestCancel(id: string): Promise<JobRecord> {
    const job = await this.#thread.write("requestCancel", id);
    await this.tidy([id]);
    return job;
  }

  retry(id: string): Promise<JobRecord> {
    return this.#thread.write("retry", id);
  }

  async finish(lease: Lease, outcome: JobOutcome): Promise<JobRecord> {
    const job = await this.#thread.write("finish", keyOf(lease), outcome);
    await this.tidy([lease.id]);
    return job;
  }

  async release(lease: Lease): Promise<void> {
    await this.#thread.write("release", keyOf(lease));
    await this.tidy([lease.id]);
  }

  async delete(id: string): Promise<void> {
    await this.#thread.write("delete", id);
    await this.tidy([id]);
  }

  counts(): Promise<Readonly<Record<JobStateKind, number>>> {
    return this.#thread.call("counts");
  }

  deadCount(): Promise<number> {
    return this.#thread.call("deadCount");
  }

  waitForChange(wait: { readonly after: number; readonly signal: AbortSignal }): Promise<void> {
    return this.#thread.changes.wait(wait.after, wait.signal);
  }

  async close(): Promise<void> {
    await this.#tidied;
    await this.#thread.close();
  }
}

function removeUnneeded(
  artefacts: FileArtefacts,
  id: string,
  names: readonly string[],
  needed: FilesNeeded,
): Promise<void> {
  const isKept = (name: string): boolean =>
    Number.parseInt(name, 10) === needed.liveToken || needed.names.includes(name);
  const unneeded = names.filter((name) => !isKept(name));
  return artefacts.remove(id, needed.final && unneeded.length === names.length ? undefined : unneeded);
}

function keyOf(lease: Lease): LeaseKey {
  return { id: lease.id, token: lease.token };
}
