// The job store on a NATS server or cluster: the record in the key-value bucket is the only lease, the revision at which it was claimed
// its fencing token, and every write a compare-and-set. Streams wake claimants and carry events; files lie in the object store.
import { createHash, randomUUID } from "node:crypto";
import { MoevieError, asMoevieError, limit } from "@moevie/contracts";
import { systemClock, type Clock } from "@moevie/runtime";
import { artefactNames } from "./artefact-names.ts";
import { newestSound } from "./checkpoint-file.ts";
import type { LargeCheckpoints } from "./checkpoint-place.ts";
import { ChangeSignal } from "./change-signal.ts";
import type { EndedJob } from "./ended-jobs.ts";
import { isFinal, type JobStateKind } from "./job-state.ts";
import { numberOf } from "./job-index.ts";
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
import { NatsArtefacts } from "./nats-artefacts.ts";
import { withNats } from "./nats-connection.ts";
import { EventLog } from "./nats-events.ts";
import { newJob, recordOf, withEvent, type JobEntry } from "./nats-record.ts";
import { RequestKeys, absent } from "./nats-requests.ts";
import { removeKey, type NatsParts } from "./nats-streams.ts";
import { RecordTable } from "./nats-table.ts";
import { Upkeep } from "./nats-upkeep.ts";
import { NatsJobs } from "./nats-jobs.ts";
import { WakeUps } from "./nats-wakeups.ts";
import { cursorOf, tokenOf } from "./page-token.ts";
import { DEFAULT_TENANT, EQUAL_SHARES, type TenantShares } from "./queue-order.ts";
import { queueFull, requestKeyOf, tenantQueueFull } from "./queue-room.ts";
import { bounded } from "./bounded.ts";
import { finished, lost, moved } from "./nats-moves.ts";

export interface NatsStoreOptions {
  /** Names of streams and buckets begin with it. Default "moevie". */
  readonly prefix?: string;
  /** Servers that keep each record, event and file: 1, 3 or 5. Default 1. */
  readonly replicas?: number;
  /** Jobs that may wait; gateways that submit at the same moment may go over it by one each. Default jobsQueuedMax. */
  readonly queuedMax?: number;
  /** What tenants are granted; bounds of theirs are kept as `queuedMax` is. Default: all the same. */
  readonly shares?: TenantShares;
  /** What is kept of finished jobs; a store that has it also sweeps. Default: all. */
  readonly retention?: Retention;
  /** Pause between two sweeps. Default natsSweepMs. */
  readonly sweepMs?: number;
  /** Hears of each job whose end this opener wrote otherwise than by `finish`. */
  readonly onEnded?: (ended: EndedJob) => void;
  /** Hears, a line each, of settings of streams found that are not those meant, of records it cannot read and of what a sweep removed. */
  readonly onNotice?: (line: string) => void;
  /** Where checkpoints of so many bytes and more go. Default: all into the object store. */
  readonly large?: LargeCheckpoints;
  /** Default: the system's. */
  readonly clock?: Clock;
}

/** A store over streams that are open. */
export async function startNatsStore(parts: NatsParts, options: NatsStoreOptions): Promise<JobStore> {
  const store = new NatsStore(parts, options);
  await store.start();
  return store;
}

/** How long an idle claimant leaves a new job to the one that was woken for it. */
const WAKE_GRACE_MS = 50;

class NatsStore implements JobStore {
  readonly artefacts: NatsArtefacts;
  readonly #parts: NatsParts;
  readonly #options: NatsStoreOptions;
  readonly #clock: Clock;
  readonly #changes = new ChangeSignal();
  readonly #ended = new AbortController();
  readonly #events: EventLog;
  readonly #table: RecordTable;
  readonly #wakeUps: WakeUps;
  readonly #requests: RequestKeys;
  readonly #jobs: NatsJobs;
  readonly #upkeep: Upkeep;
  readonly #shares: TenantShares;
  /** Leases whose end may have been written although no answer came. */
  readonly #unsure = new Set<string>();
  #checkpoints = 0;

  constructor(parts: NatsParts, options: NatsStoreOptions) {
    this.#parts = parts;
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    const clock = this.#clock;
    const { signal } = this.#ended;
    this.#events = new EventLog(parts);
    this.#table = new RecordTable(parts, this.#events, this.#changes, clock);
    this.#wakeUps = new WakeUps(parts, () => this.#changes.changed(), signal, clock);
    this.#requests = new RequestKeys(parts);
    this.artefacts = new NatsArtefacts(
      parts,
      async ({ id, token }) => {
        const job = await this.#table.read(id).catch(absent);
        const state = job?.job.state ?? { kind: "deleted" };
        return (state.kind === "running" || state.kind === "completed") && state.token === token;
      },
      clock,
      options.large,
    );
    const { artefacts } = this;
    const shared = { table: this.#table, wakeUps: this.#wakeUps, artefacts, changes: this.#changes };
    this.#shares = options.shares ?? EQUAL_SHARES;
    const { onEnded = () => undefined } = options;
    this.#jobs = new NatsJobs({ ...shared, shares: this.#shares, wallClockMs: () => clock.wallMs(), onEnded });
    this.#upkeep = new Upkeep({
      parts,
      table: this.#table,
      artefacts: this.artefacts,
      retention: options.retention,
      sweepMs: options.sweepMs ?? limit("natsSweepMs"),
      signal,
      clock,
      onNotice: options.onNotice ?? (() => undefined),
      lapse: (id, revision) => this.#jobs.lapse(id, revision),
      expire: (id, dead) => this.#jobs.expire(id, dead),
      remove: (id) => this.delete(id),
    });
    this.#table.onWatched = (entry) => void this.#heard(entry);
    this.#table.onProblem = (id, error) => options.onNotice?.(`record of ${id}: ${error.message}`);
  }

  async start(): Promise<void> {
    // Only `close` ends it; if the client gives up all the same, waiters must hear of it.
    void this.#parts.connection
      .closed()
      .then(() => this.#changes.end(new MoevieError("PEER_UNAVAILABLE", "The connection to NATS ended.")));
    await this.#table.watch(this.#ended.signal);
    this.#upkeep.start();
  }

  get changeCount(): number {
    return this.#changes.count;
  }

  async submit(spec: JobSpec, options: SubmitOptions = {}): Promise<Submission> {
    const { requestId, requestDigest = "", bundleDigest = "", warnings = [], traceparent } = options;
    const { tenant = DEFAULT_TENANT, priority = "normal", deadlineMs } = options;
    const requestKey = requestId === undefined ? undefined : hashed(requestKeyOf(tenant, requestId));
    let id: string = randomUUID();
    if (requestKey === undefined) this.#checkRoom(tenant);
    else {
      const reserve = { requestKey, digest: requestDigest, newId: id, read: (of: string) => this.#table.read(of) };
      const reserved = await withNats(() =>
        this.#requests.reserve({ ...reserve, checkRoom: () => this.#checkRoom(tenant) }),
      );
      if (reserved.job !== undefined) return { ...recordOf(reserved.job.job), repeated: true };
      id = reserved.id;
    }
    const createdAtMs = this.#clock.wallMs();
    const given = { id, spec, bundleDigest, warnings, tenant, priority, createdAtMs };
    const extra = {
      ...(deadlineMs !== undefined && { deadlineAtMs: createdAtMs + deadlineMs }),
      ...(traceparent !== undefined && { traceparent }),
      ...(requestKey !== undefined && { requestKey }),
    };
    const entry = await this.#table.create(newJob({ ...given, ...extra }));
    // Another call with the same request id was faster.
    if (entry === undefined) return { ...recordOf((await this.#table.read(id)).job), repeated: true };
    void this.#wakeUps.send(id);
    return { ...recordOf(entry.job), repeated: false };
  }

  async get(id: string): Promise<JobRecord> {
    return recordOf((await this.#table.read(id)).job);
  }

  list({ pageSize, pageToken = "", deadOnly = false }: ListOptions): Promise<JobPage> {
    return Promise.resolve().then(() => {
      const before = pageToken === "" ? Number.MAX_SAFE_INTEGER : cursorOf(pageToken);
      const size = Math.min(Math.max(1, pageSize), limit("listPageSizeMax"));
      const entries = this.#table.index.before(before, size + 1, deadOnly);
      const page = entries.slice(0, size);
      const last = page.at(-1);
      const nextPageToken = entries.length > size && last !== undefined ? tokenOf(numberOf(last)) : "";
      return { jobs: page.map(({ job }) => recordOf(job)), nextPageToken };
    });
  }

  async claimNext(claim: { readonly owner: string; readonly leaseMs: number }): Promise<Lease | null> {
    const wakeUp = this.#wakeUps.take();
    try {
      // The watch may be behind the wake-up.
      if (wakeUp !== undefined) await this.#table.read(wakeUp.id).catch(() => undefined);
      const { index } = this.#table;
      for (let next = index.next(this.#shares); next !== undefined; next = index.next(this.#shares)) {
        const lease = await this.#jobs.claim(next, claim);
        if (lease !== undefined) return lease;
        await this.#table.read(next.job.id).catch((thrown: unknown) => {
          if (asMoevieError(thrown).reason === "PEER_UNAVAILABLE") throw thrown;
        });
      }
      this.#wakeUps.arm();
      return null;
    } finally {
      wakeUp?.done();
    }
  }

  async takeBack(owner: string): Promise<number> {
    let count = 0;
    for (const { job } of this.#table.index.running()) {
      if (job.state.kind !== "running" || job.state.owner !== owner) continue;
      const { token } = job.state;
      const isTaken = await this.#jobs.expireIf(
        job.id,
        (now) => now.job.state.kind === "running" && now.job.state.token === token,
      );
      count += Number(isTaken);
    }
    return count;
  }

  renew(lease: Lease): Promise<LeaseAnswer> {
    return this.#jobs.held(lease, (job) => job);
  }

  writeProgress(lease: Lease, progress: JobProgress, stageTimings?: readonly StageTiming[]): Promise<LeaseAnswer> {
    return this.#jobs.held(lease, (job) =>
      withEvent({ ...job, progress, stageTimings: stageTimings ?? job.stageTimings }),
    );
  }

  async appendEvent(lease: Lease, { previewPng }: { readonly previewPng: Uint8Array }): Promise<LeaseAnswer> {
    bounded("preview", previewPng.byteLength, limit("previewBytesMax"));
    await this.#jobs.held(lease, undefined);
    const preview = await withNats(() => this.#parts.records.put(previewKey(lease.id), previewPng));
    return await this.#jobs.held(lease, (job) => withEvent(job, preview));
  }

  async saveCheckpoint(lease: Lease, parts: readonly Uint8Array[]): Promise<LeaseAnswer> {
    const sizeBytes = parts.reduce((sum, part) => sum + part.byteLength, 0);
    bounded("checkpoint", sizeBytes, limit("checkpointBytesMax"));
    const { id, token } = lease;
    await this.#jobs.held(lease, undefined);
    const name = this.artefacts.checkpointName(token, ++this.#checkpoints, sizeBytes);
    let unneeded: readonly string[] = [name];
    try {
      const stored = await this.artefacts.putCheckpoint(id, name, parts);
      const { answer, before } = await this.#jobs.heldChange(lease, (job) => {
        const checkpoints = [stored, ...job.checkpoints].slice(0, limit("checkpointGenerationsMax"));
        return { ...job, checkpoints };
      });
      unneeded = before.job.checkpoints.slice(limit("checkpointGenerationsMax") - 1).map((old) => old.name);
      return answer;
    } catch (thrown) {
      // The record may name it all the same: an answer was lost. If not, a sweep removes it.
      if (asMoevieError(thrown).reason === "PEER_UNAVAILABLE") unneeded = [];
      throw thrown;
    } finally {
      await this.#jobs.removeFiles(id, unneeded);
    }
  }

  async loadCheckpoint(id: string): Promise<Uint8Array | null> {
    const { checkpoints } = (await this.#table.read(id)).job;
    return await newestSound(checkpoints, (facts) => this.artefacts.readCheckpoint(id, facts));
  }

  async eventsAfter(
    id: string,
    after: number,
    eventsMax: number = limit("eventsPerReadMax"),
  ): Promise<readonly JobEvent[]> {
    const entry = await this.#table.known(id);
    const found = await withNats(() =>
      this.#events.after(entry, after, Math.min(eventsMax, limit("eventsPerReadMax"))),
    );
    return await Promise.all(
      found.map(async ({ preview, ...event }) => {
        if (preview === undefined) return event;
        const picture = await withNats(() => this.#parts.records.get(previewKey(id)));
        return picture?.revision === preview ? { ...event, previewPng: picture.value } : event;
      }),
    );
  }

  async requestCancel(id: string): Promise<JobRecord> {
    const changed = await this.#table.change(id, ({ job }) => {
      const { state } = job;
      if (isFinal(state) || (state.kind === "running" && state.cancelRequested)) return undefined;
      return moved(job, { kind: "cancel", atMs: this.#clock.wallMs() });
    });
    await this.#jobs.tidy(changed);
    return recordOf(changed.after.job);
  }

  retry(id: string): Promise<JobRecord> {
    return this.#jobs.retry(id, (tenant) => this.#checkRoom(tenant));
  }

  async finish(lease: Lease, outcome: JobOutcome): Promise<JobRecord> {
    const key = `${lease.id}:${lease.token}`;
    try {
      const changed = await this.#table.change(lease.id, ({ job }) => {
        if (this.#unsure.has(key) && job.state.kind === outcome.kind) return undefined;
        return finished(job, lease.token, outcome, this.#clock.wallMs());
      });
      this.#unsure.delete(key);
      await this.#jobs.tidy(changed, lease.token);
      return recordOf(changed.after.job);
    } catch (thrown) {
      if (asMoevieError(thrown).reason === "PEER_UNAVAILABLE") this.#unsure.add(key);
      throw lost(thrown);
    }
  }

  async release(lease: Lease): Promise<void> {
    const changed = await this.#table
      .change(lease.id, ({ job }) =>
        moved(
          { ...job, attempt: job.attempt - 1 },
          { kind: "release", token: lease.token, atMs: this.#clock.wallMs() },
        ),
      )
      .catch((thrown: unknown) => Promise.reject(lost(thrown)));
    await this.#jobs.left(changed);
  }

  async delete(id: string): Promise<void> {
    const { job } = await this.#table.remove(id);
    const { names, jsm } = this.#parts;
    const tokens = job.state.kind === "running" || job.state.kind === "completed" ? [job.state.token] : [];
    await withNats(async () => {
      if (job.requestKey !== undefined) await this.#requests.forget(job.requestKey, id);
      await removeKey(this.#parts, previewKey(id));
      await jsm.streams.purge(names.eventStream, { filter: names.eventSubject(id) });
    });
    await this.#jobs.removeFiles(id, [...tokens.flatMap(artefactNames), ...job.checkpoints.map(({ name }) => name)]);
  }

  counts(): Promise<Readonly<Record<JobStateKind, number>>> {
    return Promise.resolve(this.#table.index.counts());
  }

  deadCount(): Promise<number> {
    return Promise.resolve(this.#table.index.deadCount());
  }

  waitForChange(wait: { readonly after: number; readonly signal: AbortSignal }): Promise<void> {
    return this.#changes.wait(wait.after, wait.signal);
  }

  async close(): Promise<void> {
    const error = new MoevieError("DRAINING", "The job store is closed.");
    this.#ended.abort(error);
    this.#changes.end(error);
    await this.#upkeep.stopped;
    const { connection } = this.#parts;
    // Acknowledgements on their way; a server that is away is not waited for.
    await Promise.race([connection.flush().catch(() => undefined), this.#clock.pause(limit("retryPauseMsMin"))]);
    await connection.close();
  }

  #checkRoom(tenant: string): void {
    const queuedMax = this.#options.queuedMax ?? limit("jobsQueuedMax");
    const { index } = this.#table;
    if (index.queuedCount() >= queuedMax) throw queueFull(queuedMax);
    if (index.queuedCount(tenant) >= this.#shares.queuedMax) throw tenantQueueFull(tenant, this.#shares.queuedMax);
  }

  /** Another process wrote: a new job is left for a moment to the claimant that was woken for it. */
  async #heard({ job }: JobEntry): Promise<void> {
    if (job.state.kind === "queued" && this.#wakeUps.armed)
      await this.#clock.pause(WAKE_GRACE_MS, this.#ended.signal).catch(() => undefined);
    this.#changes.changed();
  }
}

function hashed(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}

function previewKey(id: string): string {
  return `preview.${id}`;
}
