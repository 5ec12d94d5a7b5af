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
import type { KeeperMessage, SentError } from "./sqlite-keeper.ts";
import type { FilesNeeded, LeaseKey, SqliteRecords } from "./sqlite-records.ts";
import type { ThreadCall, ThreadData } from "./sqlite-thread.ts";

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

/** What a store stands on: the keeper of the file, wherever it runs, and the files. */
export interface SqliteParts {
  /** Starts the keeper, whose messages and end are heard from then on, and answers the way to it. */
  readonly startKeeper: (
    hear: (message: KeeperMessage) => void,
    end: (error: Error) => void,
  ) => (call: ThreadCall) => void;
  readonly artefacts: FileArtefacts;
  /** Hears, a line each, of copies that could not be made. */
  readonly onNotice?: ((line: string) => void) | undefined;
  readonly onEnded?: ((ended: EndedJob) => void) | undefined;
}

/** Opens or makes the store. Throws STORE_CORRUPT, DISK_FULL, CONFIG_INVALID or UNSUPPORTED. */
export async function openSqliteStore(path: string, options: SqliteStoreOptions = {}): Promise<SqliteJobStore> {
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  } catch (thrown) {
    throw diskError(thrown);
  }
  const thread = {
    path,
    queuedMax: options.queuedMax ?? limit("jobsQueuedMax"),
    shares: options.shares ?? EQUAL_SHARES,
    bytesMax: options.bytesMax ?? limit("storeBytesMax"),
    retention: options.retention,
    backupMs: options.backupMs ?? 0,
  };
  const artefacts = new FileArtefacts(options.artefactsFolder ?? join(dirname(path), "artefacts"));
  return await startSqliteStore({
    startKeeper: inThread(thread),
    artefacts,
    onNotice: options.onNotice,
    onEnded: options.onEnded,
  });
}

/** A store over a keeper that is started now. Throws what the keeper's opening throws. */
export async function startSqliteStore({
  startKeeper,
  artefacts,
  onNotice,
  onEnded,
}: SqliteParts): Promise<SqliteJobStore> {
  const keeper = await Keeper.open(startKeeper);
  if (onNotice !== undefined) keeper.onNotice = onNotice;
  if (onEnded !== undefined) keeper.onEnded = onEnded;
  const store = new SqliteStore(keeper, artefacts);
  await store.tidy(await artefacts.ids());
  return store;
}

function inThread(data: ThreadData): SqliteParts["startKeeper"] {
  return (hear, end) => {
    const file = import.meta.url.endsWith(".ts") ? "./sqlite-thread.ts" : "./sqlite-thread.js";
    const thread = new Worker(new URL(file, import.meta.url), { workerData: data, name: "job-store", execArgv: [] });
    thread.on("message", hear);
    thread.on("error", (cause) => end(new MoevieError("INTERNAL", "The job store's thread failed.", { cause })));
    thread.on("exit", () => end(new MoevieError("DRAINING", "The job store is closed.")));
    return (call) => thread.postMessage(call, []);
  };
}

type Method = keyof SqliteRecords;

/** Calls to the keeper; one owner of the pending ones. */
class Keeper {
  readonly #send: (call: ThreadCall) => void;
  readonly #pending = new Map<number, Pending>();
  readonly #over = Promise.withResolvers<void>();
  readonly changes = new ChangeSignal();
  #calls = 0;
  #ended: Error | undefined;
  /** Hears of jobs whose lease the store took or that it removed, and says that they changed. */
  onTaken: (id: string) => void = () => undefined;

  onEnded: (ended: EndedJob) => void = () => undefined;
  onNotice: (line: string) => void = () => undefined;

  constructor(start: SqliteParts["startKeeper"]) {
    this.#send = start(
      (message) => this.#receive(message),
      (error) => this.#end(error),
    );
  }

  static async open(start: SqliteParts["startKeeper"]): Promise<Keeper> {
    const keeper = new Keeper(start);
    await new Promise<void>((resolve, reject) =>
      keeper.#pending.set(0, { resolve: resolve as Pending["resolve"], reject }),
    );
    return keeper;
  }

  call<K extends Method>(method: K, ...values: Parameters<SqliteRecords[K]>): Promise<ReturnType<SqliteRecords[K]>> {
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    if (this.#pending.size >= limit("storeCallsInFlightMax"))
      return Promise.reject(new MoevieError("PEER_UNAVAILABLE", "Too many calls wait for the job store."));
    const call = ++this.#calls;
    return new Promise((resolve, reject) => {
      this.#pending.set(call, { resolve, reject });
      this.#send({ call, method, values });
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
    this.#send({ method: "close" });
    await this.#over.promise;
  }

  #receive(message: KeeperMessage): void {
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
    this.#over.resolve();
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
  readonly #keeper: Keeper;
  #tidied: Promise<void> = Promise.resolve();
  #checkpoints = 0;

  constructor(keeper: Keeper, artefacts: FileArtefacts) {
    this.#keeper = keeper;
    this.artefacts = artefacts;
    keeper.onTaken = (id) => void this.tidy([id]).then(() => keeper.changes.changed());
  }

  /** Removes files of jobs that their records do not need. Never rejects: what stays goes when the store opens next. */
  tidy(ids: readonly string[]): Promise<void> {
    const work = async (): Promise<void> => {
      // Files first, records after: a file in this look whose lease does not hold the job then can never be needed again.
      const names = await Promise.all(ids.map((id) => this.artefacts.names(id)));
      const needed = await this.#keeper.call("filesNeeded", ids);
      await Promise.all(needed.map((job, at) => removeUnneeded(this.artefacts, ids[at] ?? "", names[at] ?? [], job)));
    };
    this.#tidied = this.#tidied.then(work).catch(() => undefined);
    return this.#tidied;
  }

  get changeCount(): number {
    return this.#keeper.changes.count;
  }

  submit(spec: JobSpec, options: SubmitOptions = {}): Promise<Submission> {
    return this.#keeper.write("submit", spec, options);
  }

  get(id: string): Promise<JobRecord> {
    return this.#keeper.call("get", id);
  }

  list({ pageSize, pageToken = "", deadOnly = false }: ListOptions): Promise<JobPage> {
    return this.#keeper.call("list", pageSize, pageToken, deadOnly);
  }

  async claimNext(claim: { readonly owner: string; readonly leaseMs: number }): Promise<Lease | null> {
    const lease = await this.#keeper.call("claimNext", claim.owner, claim.leaseMs);
    if (lease !== null) this.#keeper.changes.changed();
    return lease;
  }

  async takeBack(owner: string): Promise<number> {
    const ids = await this.#keeper.write("takeBack", owner);
    await this.tidy(ids);
    return ids.length;
  }

  renew(lease: Lease): Promise<LeaseAnswer> {
    return this.#keeper.call("renew", keyOf(lease));
  }

  writeProgress(lease: Lease, progress: JobProgress, stageTimings?: readonly StageTiming[]): Promise<LeaseAnswer> {
    return this.#keeper.write("writeProgress", keyOf(lease), progress, stageTimings);
  }

  async appendEvent(lease: Lease, event: { readonly previewPng: Uint8Array }): Promise<LeaseAnswer> {
    bounded("preview", event.previewPng.byteLength, limit("previewBytesMax"));
    return await this.#keeper.write("appendEvent", keyOf(lease), event.previewPng);
  }

  async saveCheckpoint(lease: Lease, parts: readonly Uint8Array[]): Promise<LeaseAnswer> {
    const sizeBytes = parts.reduce((sum, part) => sum + part.byteLength, 0);
    bounded("checkpoint", sizeBytes, limit("checkpointBytesMax"));
    const { id, token } = lease;
    const name = `${token}-${++this.#checkpoints}.checkpoint`;
    let unneeded: readonly string[] = [name];
    try {
      const sha256 = await writeCheckpoint(await this.artefacts.place(id, name), parts, this.artefacts.disk);
      const saved = await this.#keeper.call("saveCheckpoint", keyOf(lease), { name, sizeBytes, sha256 });
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
    const kept = await this.#keeper.call("checkpoints", id);
    return await newestSound(kept, (facts) =>
      readCheckpoint(this.artefacts.path(id, facts.name), facts, this.artefacts.disk),
    );
  }

  eventsAfter(id: string, after: number, eventsMax: number = limit("eventsPerReadMax")): Promise<readonly JobEvent[]> {
    return this.#keeper.call("eventsAfter", id, after, eventsMax);
  }

  async requestCancel(id: string): Promise<JobRecord> {
    const job = await this.#keeper.write("requestCancel", id);
    await this.tidy([id]);
    return job;
  }

  retry(id: string): Promise<JobRecord> {
    return this.#keeper.write("retry", id);
  }

  async finish(lease: Lease, outcome: JobOutcome): Promise<JobRecord> {
    const job = await this.#keeper.write("finish", keyOf(lease), outcome);
    await this.tidy([lease.id]);
    return job;
  }

  async release(lease: Lease): Promise<void> {
    await this.#keeper.write("release", keyOf(lease));
    await this.tidy([lease.id]);
  }

  async delete(id: string): Promise<void> {
    await this.#keeper.write("delete", id);
    await this.tidy([id]);
  }

  counts(): Promise<Readonly<Record<JobStateKind, number>>> {
    return this.#keeper.call("counts");
  }

  deadCount(): Promise<number> {
    return this.#keeper.call("deadCount");
  }

  waitForChange(wait: { readonly after: number; readonly signal: AbortSignal }): Promise<void> {
    return this.#keeper.changes.wait(wait.after, wait.signal);
  }

  async close(): Promise<void> {
    await this.#tidied;
    await this.#keeper.close();
  }
}

/** `needed` was read after `names`: a clip that came between is none of them, and keeps the folder. */
async function removeUnneeded(
  artefacts: FileArtefacts,
  id: string,
  names: readonly string[],
  needed: FilesNeeded,
): Promise<void> {
  const isKept = (name: string): boolean =>
    Number.parseInt(name, 10) === needed.liveToken || needed.names.includes(name);
  await artefacts.remove(
    id,
    names.filter((name) => !isKept(name)),
  );
  if (needed.final) await artefacts.removeFolder(id);
}

function keyOf(lease: Lease): LeaseKey {
  return { id: lease.id, token: lease.token };
}
