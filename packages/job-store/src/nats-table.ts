// Records in the key-value bucket: read from the leader, written by compare-and-set, watched into the index. Knows no rules of jobs.
import { DeliverPolicy, type JsMsg } from "@nats-io/jetstream";
import { MoevieError, asMoevieError, limit } from "@moevie/contracts";
import type { Clock } from "@moevie/runtime";
import type { ChangeSignal } from "./change-signal.ts";
import { JobIndex } from "./job-index.ts";
import { isConflict, withNats } from "./nats-connection.ts";
import type { EventLog } from "./nats-events.ts";
import { decodeJob, encodeJob, type JobEntry, type StoredJob } from "./nats-record.ts";
import type { NatsParts } from "./nats-streams.ts";

/** Writes of one change before the caller is told to come again: each lost try means that another's write went through. */
const CONFLICTS_MAX = 64;
const WATCH_PAUSE_MS = 200;
const JOB_KEYS = "job.";

export interface Changed {
  readonly before: JobEntry;
  readonly after: JobEntry;
}

export class RecordTable {
  readonly index = new JobIndex();
  readonly #parts: NatsParts;
  readonly #events: EventLog;
  readonly #changes: ChangeSignal;
  readonly #clock: Clock;
  /** Hears of a record that another process wrote. */
  onWatched: (entry: JobEntry) => void = () => this.#changes.changed();
  onProblem: (id: string, error: MoevieError) => void = () => undefined;

  constructor(parts: NatsParts, events: EventLog, changes: ChangeSignal, clock: Clock) {
    this.#parts = parts;
    this.#events = events;
    this.#changes = changes;
    this.#clock = clock;
  }

  /** The record as the leader has it. Throws VIDEO_NOT_FOUND. */
  async read(id: string): Promise<JobEntry> {
    const found = await withNats(() => this.#parts.records.get(keyOf(id)));
    if (found === null || found.operation !== "PUT") {
      if (found !== null) this.index.remove(id, found.revision, false);
      throw new MoevieError("VIDEO_NOT_FOUND", `There is no videos/${id}, or it was deleted.`);
    }
    return this.#decoded(id, found.value, found.revision);
  }

  /** What is known without asking, or else as the leader has it. Throws VIDEO_NOT_FOUND. */
  async known(id: string): Promise<JobEntry> {
    return this.index.get(id) ?? (await this.read(id));
  }

  /** False when there is a job of that id. */
  async create(job: StoredJob): Promise<JobEntry | undefined> {
    try {
      const revision = await this.#parts.records.create(keyOf(job.id), encodeJob(job));
      return await this.#written({ job: { ...job, number: revision }, revision });
    } catch (thrown) {
      if (isConflict(thrown)) return undefined;
      return await withNats(() => Promise.reject(thrown as Error));
    }
  }

  /**
   * Moves a record by compare-and-set, as often as it takes; `move` answers undefined when there is nothing to write, and throws for
   * what the record does not allow. Throws VIDEO_NOT_FOUND.
   */
  async change(id: string, move: (entry: JobEntry) => StoredJob | undefined): Promise<Changed> {
    let before = this.index.get(id);
    let isFresh = before === undefined;
    for (let tries = 0; tries < CONFLICTS_MAX; tries += 1) {
      before ??= await this.read(id);
      try {
        const next = move(before);
        if (next === undefined) return { before, after: before };
        const after = await this.write(before, next);
        if (after !== undefined) return { before, after };
      } catch (thrown) {
        // What is refused is refused by the record as it is now, never by a memory of it.
        if (isFresh || asMoevieError(thrown).reason === "PEER_UNAVAILABLE") throw thrown;
      }
      before = undefined;
      isFresh = true;
    }
    throw new MoevieError("PEER_UNAVAILABLE", "Too many write to this job at once.");
  }

  /** One compare-and-set; undefined when another was first. The event, if `next` has one more, goes with it. */
  async write(before: JobEntry, next: StoredJob): Promise<JobEntry | undefined> {
    try {
      const { event } = next;
      const isNew = event.number > before.job.event.number;
      const job = isNew
        ? { ...next, event: { ...event, after: (await this.#events.settle(before.job)).sequence } }
        : next;
      const revision = await this.#parts.records.update(keyOf(job.id), encodeJob(job), before.revision);
      return await this.#written({ job, revision });
    } catch (thrown) {
      if (isConflict(thrown)) return undefined;
      return await withNats(() => Promise.reject(thrown as Error));
    }
  }

  /** Throws VIDEO_NOT_FOUND. Answers the record that was removed. */
  async remove(id: string): Promise<JobEntry> {
    for (let tries = 0; tries < CONFLICTS_MAX; tries += 1) {
      const entry = await this.read(id);
      try {
        await this.#parts.records.purge(keyOf(id), { previousSeq: entry.revision });
      } catch (thrown) {
        if (isConflict(thrown)) continue;
        return await withNats(() => Promise.reject(thrown as Error));
      }
      this.index.remove(id, entry.revision, true);
      this.#events.forget(id);
      this.#changes.changed();
      return entry;
    }
    throw new MoevieError("PEER_UNAVAILABLE", "Too many write to this job at once.");
  }

  /** Keeps the index until the signal aborts; resolves when it holds all there was. */
  async watch(signal: AbortSignal): Promise<void> {
    const synced = Promise.withResolvers<void>();
    void (async () => {
      while (!signal.aborted) {
        await this.#watchOnce(signal, synced.resolve).catch(() => undefined);
        await this.#clock.pause(WATCH_PAUSE_MS, signal).catch(() => undefined);
      }
    })();
    const late = this.#clock.pause(limit("readyWaitMsMax"), signal).then(() => {
      throw new MoevieError("PEER_UNAVAILABLE", "The NATS server did not show its records in time.");
    });
    await Promise.race([synced.promise, late]);
  }

  async #watchOnce(signal: AbortSignal, onSynced: () => void): Promise<void> {
    const { js, names } = this.#parts;
    const prefix = `$KV.${names.records}.${JOB_KEYS}`;
    // Pulled: the client's push consumers notice a dead server only after a minute, and what it does then about either kind does not help.
    const consumer = await js.consumers.get(names.recordsStream, {
      filter_subjects: `${prefix}*`,
      deliver_policy: DeliverPolicy.LastPerSubject,
    });
    const missing = new Set(this.index.ids());
    let isSynced = false;
    const sync = async (): Promise<void> => {
      isSynced = true;
      // Removed while nobody watched.
      for (const id of missing) await this.read(id).catch(() => undefined);
      onSynced();
      this.#changes.changed();
    };
    const { num_pending: pending } = await consumer.info(true);
    const messages = await consumer.consume({
      idle_heartbeat: limit("natsHeartbeatMs"),
      expires: limit("natsHeartbeatMs") * 4,
    });
    const stop = (): void => void messages.close();
    signal.addEventListener("abort", stop, { once: true });
    void (async () => {
      for await (const status of messages.status()) if (status.type === "heartbeats_missed") stop();
    })();
    try {
      if (pending === 0) await sync();
      for await (const message of messages) {
        const id = message.subject.slice(prefix.length);
        missing.delete(id);
        this.#take(id, message);
        if (!isSynced && message.info.pending === 0) await sync();
      }
    } finally {
      signal.removeEventListener("abort", stop);
    }
  }

  #take(id: string, message: JsMsg): void {
    // Deletions have a header that says so, and no record.
    if (message.headers?.has("KV-Operation") === true) {
      this.#events.forget(id);
      if (this.index.remove(id, message.seq, false)) this.#changes.changed();
      return;
    }
    try {
      // What this process wrote itself comes back to it: known already.
      if (message.seq <= (this.index.get(id)?.revision ?? 0)) return;
      this.onWatched(this.#decoded(id, message.data, message.seq));
    } catch (thrown) {
      this.onProblem(id, asMoevieError(thrown));
      this.#changes.changed();
    }
  }

  /** What cannot be read is nothing that this process may work on: the index forgets it. */
  #decoded(id: string, bytes: Uint8Array, revision: number): JobEntry {
    try {
      const entry = decodeJob(bytes, revision);
      this.index.apply(id, entry);
      return entry;
    } catch (thrown) {
      this.index.remove(id, revision, true);
      throw thrown;
    }
  }

  async #written(entry: JobEntry): Promise<JobEntry> {
    this.index.apply(entry.job.id, entry);
    // The record says what the event is: a reader that misses it adds it.
    await this.#events.settle(entry.job).catch(() => undefined);
    this.#changes.changed();
    return entry;
  }
}

function keyOf(id: string): string {
  return `${JOB_KEYS}${id}`;
}
