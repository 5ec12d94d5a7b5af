// What happens to a job's record and files in NATS: claimed, held, taken back, left, tidied. Each a compare-and-set with what follows
// from it; when to do which is the store's matter.
import { artefactNames } from "./artefact-names.ts";
import type { ChangeSignal } from "./change-signal.ts";
import { endedBy, type EndedJob } from "./ended-jobs.ts";
import { held, transition } from "./job-state.ts";
import type { JobRecord, Lease, LeaseAnswer } from "./job-store.ts";
import type { LeaseSighting } from "./lease-watch.ts";
import type { NatsArtefacts } from "./nats-artefacts.ts";
import { lost, moved } from "./nats-moves.ts";
import { recordOf, tenantOf, waitingProgress, type JobEntry, type StoredJob } from "./nats-record.ts";
import type { Changed, RecordTable } from "./nats-table.ts";
import type { WakeUps } from "./nats-wakeups.ts";
import { charged, costOf, type TenantShares } from "./queue-order.ts";
import { remaining } from "./queue-room.ts";

export interface NatsJobsParts {
  readonly table: RecordTable;
  readonly wakeUps: WakeUps;
  readonly artefacts: NatsArtefacts;
  readonly changes: ChangeSignal;
  readonly shares: TenantShares;
  /** Milliseconds since 1970, for people and for deadlines. */
  readonly wallClockMs: () => number;
  /** Hears of jobs that ended otherwise than by their owner's `finish`. */
  readonly onEnded: (ended: EndedJob) => void;
}

export class NatsJobs {
  readonly #table: RecordTable;
  readonly #wakeUps: WakeUps;
  readonly #artefacts: NatsArtefacts;
  readonly #changes: ChangeSignal;
  readonly #shares: TenantShares;
  readonly #wallClockMs: () => number;
  readonly #onEnded: (ended: EndedJob) => void;

  constructor({ table, wakeUps, artefacts, changes, shares, wallClockMs, onEnded }: NatsJobsParts) {
    this.#shares = shares;
    this.#table = table;
    this.#wakeUps = wakeUps;
    this.#artefacts = artefacts;
    this.#changes = changes;
    this.#wallClockMs = wallClockMs;
    this.#onEnded = onEnded;
  }

  async claim(
    entry: JobEntry,
    { owner, leaseMs }: { readonly owner: string; readonly leaseMs: number },
  ): Promise<Lease | undefined> {
    const { job, revision: token } = entry;
    const charge = { tenant: tenantOf(job), cost: costOf(job.spec) };
    const isCharged = job.isBegun === true && job.accounts !== undefined;
    const accounts = isCharged ? job.accounts : charged(this.#table.index.accounts, charge, this.#shares);
    const started = { ...job, attempt: job.attempt + 1, leaseMs, isBegun: true, accounts };
    const atMs = this.#wallClockMs();
    const after = await this.#table.write(entry, moved(started, { kind: "claim", owner, token, atMs }));
    if (after === undefined) return undefined;
    return { id: job.id, token, owner, leaseMs, ...remaining(job, atMs), job: recordOf(after.job) };
  }

  /** Queues a dead job again. Throws VIDEO_NOT_DEAD and what `checkRoom` throws. */
  async retry(id: string, checkRoom: (tenant: string) => void): Promise<JobRecord> {
    const changed = await this.#table.change(id, ({ job }) => {
      transition(job.state, { kind: "retry" });
      checkRoom(tenantOf(job));
      const { deadlineAtMs, createdAtMs } = job;
      const deadline =
        deadlineAtMs === undefined ? {} : { deadlineAtMs: this.#wallClockMs() + deadlineAtMs - createdAtMs };
      const again = { attempt: 0, isBegun: false, progress: waitingProgress(job.spec), stageTimings: [] };
      return moved({ ...job, ...again, ...deadline }, { kind: "retry" });
    });
    await this.left(changed);
    return recordOf(changed.after.job);
  }

  /** Ends a job that still waits after its deadline, if nothing happened to it since `revision`. */
  async lapse(id: string, revision: number): Promise<void> {
    const changed = await this.#table.change(id, (now) =>
      now.revision === revision ? moved(now.job, { kind: "lapse", atMs: this.#wallClockMs() }) : undefined,
    );
    await this.tidy(changed);
  }

  async held(lease: Lease, next: ((job: StoredJob) => StoredJob) | undefined): Promise<LeaseAnswer> {
    return (await this.heldChange(lease, next)).answer;
  }

  /** A write of the lease's owner; without `next` nothing is written. Throws LEASE_LOST. */
  async heldChange(
    { id, token }: Lease,
    next: ((job: StoredJob) => StoredJob) | undefined,
  ): Promise<Changed & { readonly answer: LeaseAnswer }> {
    try {
      const changed = await this.#table.change(id, ({ job }) => {
        held(job.state, token);
        return next?.(job);
      });
      return { ...changed, answer: { cancelRequested: held(changed.after.job.state, token).cancelRequested } };
    } catch (thrown) {
      throw lost(thrown);
    }
  }

  /** Takes a dead lease's job back; nothing when its owner wrote after all. */
  async expire(id: string, dead: LeaseSighting): Promise<void> {
    await this.expireIf(id, ({ revision }) => revision === dead.revision);
  }

  async expireIf(id: string, holds: (now: JobEntry) => boolean): Promise<boolean> {
    const changed = await this.#table.change(id, (now) =>
      holds(now) ? moved(now.job, { kind: "expire", attempt: now.job.attempt, atMs: this.#wallClockMs() }) : undefined,
    );
    if (changed.after === changed.before) return false;
    await this.left(changed);
    return true;
  }

  /** A job that left its lease and may wait again. */
  async left(changed: Changed): Promise<void> {
    if (changed.after.job.state.kind === "queued") void this.#wakeUps.send(changed.after.job.id);
    await this.tidy(changed);
    this.#changes.changed();
  }

  /**
   * Removes files that the record needed before a change, or its lease may have made, and does not need after it. `endedToken`: of an owner that
   * wrote the end itself, and counts it.
   */
  async tidy({ before, after }: Changed, endedToken?: number): Promise<void> {
    if (after === before && endedToken === undefined) return;
    const { state } = before.job;
    const ended = endedToken === undefined ? endedBy(state, after.job.state) : undefined;
    if (ended !== undefined) this.#onEnded(ended);
    const token = state.kind === "running" ? state.token : endedToken;
    const isPublished = after.job.state.kind === "completed";
    const kept = new Set(after.job.checkpoints.map(({ name }) => name));
    const names = before.job.checkpoints.map(({ name }) => name).filter((name) => !kept.has(name));
    if (after.job.state.kind === "running") return;
    await this.removeFiles(after.job.id, [
      ...names,
      ...(token === undefined || isPublished ? [] : artefactNames(token)),
    ]);
  }

  /** Never rejects: a sweep removes what stays. */
  async removeFiles(id: string, names: readonly string[]): Promise<void> {
    await this.#artefacts.remove(id, names).catch(() => undefined);
  }
}
