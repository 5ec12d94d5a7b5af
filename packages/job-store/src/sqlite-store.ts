// The job store on one SQLite file shared by processes: every call runs in a thread of its own, so that no disk holds up a stream.
import { mkdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { Worker } from "node:worker_threads";
import { MoevieError, limit } from "@moevie/contracts";
import { Artefacts, diskError } from "./artefacts.ts";
import { readCheckpoint, writeCheckpoint } from "./checkpoint-file.ts";
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
  Retention,
  StageTiming,
  Submission,
  SubmitOptions,
} from "./job-store.ts";
import type { LeaseKey, SqliteRecords } from "./sqlite-records.ts";
import type { SentError, ThreadCall, ThreadData, ThreadMessage } from "./sqlite-thread.ts";

export interface SqliteStoreOptions {
  /** Jobs that may wait. Default jobsQueuedMax. */
  readonly queuedMax?: number;
  /** Largest size of the file. Default storeBytesMax. */
  readonly bytesMax?: number;
  /** What is kept of finished jobs. Default: all. */
  readonly retention?: Retention;
  /** Folder of clips and checkpoints. Default: artefacts/ beside the file. */
  readonly artefactsFolder?: string;
}

interface Pending {
  readonly resolve: (value: never) => void;
  readonly reject: (error: Error) => void;
}

/** Opens or makes the store. Throws STORE_CORRUPT, DISK_FULL, CONFIG_INVALID or UNSUPPORTED. */
export async function openSqliteStore(path: string, options: SqliteStoreOptions = {}): Promise<JobStore> {
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  } catch (thrown) {
    throw diskError(thrown);
  }
  const thread = await StoreThread.open({
    path,
    queuedMax: options.queuedMax ?? limit("jobsQueuedMax"),
    bytesMax: options.bytesMax ?? limit("storeBytesMax"),
    retention: options.retention,
  });
  const artefacts = new Artefacts(options.artefactsFolder ?? join(dirname(path), "artefacts"));
  const store = new SqliteStore(thread, artefacts);
  for (const id of await artefacts.ids()) await store.tidy(id);
  return store;
}

type Method = keyof SqliteRecords;

/** Calls into the thread; one owner of the pending ones. */
class StoreThread {
  readonly #thread: Worker;
  readonly #pending = new Map<number, Pending>();
  readonly #waiters = new Set<() => void>();
  #calls = 0;
  #ended: Error | undefined;
  changeCount = 0;
  /** Hears of jobs whose lease the store took or that it removed, and says that they changed. */
  onTaken: (id: string) => void = () => undefined;

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
    this.changed();
    return result;
  }

  async wait(after: number, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    while (this.changeCount <= after) {
      if (this.#ended !== undefined) throw this.#ended;
      await new Promise<void>((resolve, reject) => {
        const finish = (settle: () => void): void => {
          this.#waiters.delete(wake);
          signal.removeEventListener("abort", abort);
          settle();
        };
        const wake = (): void => finish(resolve);
        const abort = (): void => finish(() => reject(signal.reason as Error));
        this.#waiters.add(wake);
        signal.addEventListener("abort", abort, { once: true });
      });
    }
  }

  async close(): Promise<void> {
    if (this.#ended !== undefined) return;
    const exited = new Promise<void>((resolve) => this.#thread.once("exit", () => resolve()));
    this.#thread.postMessage({ call: 0, method: "close", values: [] } satisfies ThreadCall, []);
    await exited;
  }

  #receive(message: ThreadMessage): void {
    if (message.kind === "changed") return this.changed();
    if (message.kind === "taken") return this.onTaken(message.id);
    const call = message.kind === "opened" ? 0 : message.call;
    const pending = this.#pending.get(call);
    this.#pending.delete(call);
    if (message.kind === "error") pending?.reject(received(message.error));
    else pending?.resolve((message.kind === "result" ? message.value : undefined) as never);
  }

  changed(): void {
    this.changeCount += 1;
    for (const wake of this.#waiters) wake();
  }

  #end(error: Error): void {
    this.#ended ??= error;
    for (const { reject } of this.#pending.values()) reject(this.#ended);
    this.#pending.clear();
    for (const wake of this.#waiters) wake();
  }
}

function received({ reason, message, ...options }: SentError): MoevieError {
  return new MoevieError(reason, message, options);
}

class SqliteStore implements JobStore {
  readonly artefacts: Artefacts;
  readonly #thread: StoreThread;
  #tidied: Promise<void> = Promise.resolve();
  #checkpoints = 0;

  constructor(thread: StoreThread, artefacts: Artefacts) {
    this.#thread = thread;
    this.artefacts = artefacts;
    thread.onTaken = (id) => void this.tidy(id).then(() => thread.changed());
  }

  /** Removes files of a job that its record does not need. Never rejects: what stays goes when the store opens next. */
  tidy(id: string): Promise<void> {
    const work = async (): Promise<void> => {
      // Files first, the record after: a file in this look whose lease does not hold the job then can never be needed again.
      const names = await this.artefacts.names(id);
      const needed = await this.#thread.call("filesNeeded", id);
      const kept = names.filter(
        (name) => Number.parseInt(name, 10) === needed.liveToken || needed.names.includes(name),
      );
      if (needed.final && kept.length === 0) return this.artefacts.remove(id);
      await this.artefacts.remove(
        id,
        names.filter((name) => !kept.includes(name)),
      );
    };
    this.#tidied = this.#tidied.then(work).catch(() => undefined);
    return this.#tidied;
  }

  get changeCount(): number {
    return this.#thread.changeCount;
  }

  submit(spec: JobSpec, options: SubmitOptions = {}): Promise<Submission> {
    return this.#thread.write("submit", spec, options);
  }

  get(id: string): Promise<JobRecord> {
    return this.#thread.call("get", id);
  }

  list(page: { readonly pageSize: number; readonly pageToken?: string }): Promise<JobPage> {
    return this.#thread.call("list", page.pageSize, page.pageToken ?? "");
  }

  async claimNext(claim: { readonly owner: string; readonly leaseMs: number }): Promise<Lease | null> {
    const lease = await this.#thread.call("claimNext", claim.owner, claim.leaseMs);
    if (lease !== null) this.#thread.changed();
    return lease;
  }

  async takeBack(owner: string): Promise<number> {
    const ids = await this.#thread.write("takeBack", owner);
    for (const id of ids) await this.tidy(id);
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
    let unneeded: string | undefined = name;
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
      if (unneeded !== undefined) await this.artefacts.remove(id, [unneeded]);
    }
  }

  async loadCheckpoint(id: string): Promise<Uint8Array | null> {
    const facts = await this.#thread.call("checkpoint", id);
    return facts === undefined ? null : await readCheckpoint(this.artefacts.path(id, facts.name), facts);
  }

  eventsAfter(id: string, after: number, eventsMax: number = limit("eventsPerReadMax")): Promise<readonly JobEvent[]> {
    return this.#thread.call("eventsAfter", id, after, eventsMax);
  }

  async requestCancel(id: string): Promise<JobRecord> {
    const job = await this.#thread.write("requestCancel", id);
    await this.tidy(id);
    return job;
  }

  async finish(lease: Lease, outcome: JobOutcome): Promise<JobRecord> {
    const job = await this.#thread.write("finish", keyOf(lease), outcome);
    await this.tidy(lease.id);
    return job;
  }

  async release(lease: Lease): Promise<void> {
    await this.#thread.write("release", keyOf(lease));
    await this.tidy(lease.id);
  }

  async delete(id: string): Promise<void> {
    await this.#thread.write("delete", id);
    await this.tidy(id);
  }

  counts(): Promise<Readonly<Record<JobStateKind, number>>> {
    return this.#thread.call("counts");
  }

  waitForChange(wait: { readonly after: number; readonly signal: AbortSignal }): Promise<void> {
    return this.#thread.wait(wait.after, wait.signal);
  }

  async close(): Promise<void> {
    await this.#tidied;
    await this.#thread.close();
  }
}

function keyOf(lease: Lease): LeaseKey {
  return { id: lease.id, token: lease.token };
}

function bounded(what: string, bytes: number, bytesMax: number): void {
  if (bytes > bytesMax)
    throw new MoevieError("OUT_OF_MEMORY", `The ${what} has ${bytes} bytes; at most ${bytesMax} are kept.`);
}
