// All records of the bucket as this process last saw them, kept by a watch and by its own writes: the order of the queue, lists,
// counts and the leases to be observed come from it. A stale entry costs a refused write, never a wrong one.
import { JOB_STATE_KINDS, isDead, isFinal, type JobStateKind } from "./job-state.ts";
import { tenantOf, type JobEntry } from "./nats-record.ts";
import type { LeaseSighting } from "./lease-watch.ts";
import {
  NO_ACCOUNTS,
  joined,
  nextJob,
  turnMs,
  type QueueAccounts,
  type TenantShares,
  type Waiting,
} from "./queue-order.ts";
import { TenantQueues } from "./tenant-queues.ts";

export class JobIndex {
  readonly #entries = new Map<string, JobEntry>();
  readonly #queues = new TenantQueues();
  #accounts = NO_ACCOUNTS;
  readonly #running = new Set<string>();
  /** Revision at which a job was removed, until the watch has passed it. */
  readonly #removed = new Map<string, number>();

  get(id: string): JobEntry | undefined {
    return this.#entries.get(id);
  }

  /** Takes what was read or written; false when something newer is known. */
  apply(id: string, entry: JobEntry): boolean {
    const known = Math.max(this.#entries.get(id)?.revision ?? 0, this.#removed.get(id) ?? 0);
    if (entry.revision <= known) return false;
    this.#removed.delete(id);
    this.#entries.set(id, entry);
    const { kind } = entry.job.state;
    if (kind === "queued") this.#queues.add(waitingOf(entry));
    else this.#queues.remove(id);
    const { accounts } = entry.job;
    if (accounts !== undefined) this.#accounts = joined(this.#accounts, accounts);
    this.#running[kind === "running" ? "add" : "delete"](id);
    return true;
  }

  /** Forgets a job removed at `revision` or right after it; false when it was not known. */
  remove(id: string, revision: number, keepMark: boolean): boolean {
    if ((this.#entries.get(id)?.revision ?? 0) > revision) return false;
    if (keepMark) this.#removed.set(id, revision);
    else this.#removed.delete(id);
    this.#queues.remove(id);
    this.#running.delete(id);
    return this.#entries.delete(id);
  }

  ids(): IterableIterator<string> {
    return this.#entries.keys();
  }

  /** What all claims seen hold together; those of jobs removed since still count. */
  get accounts(): QueueAccounts {
    return this.#accounts;
  }

  /** The waiting job whose turn it is. */
  next(shares: TenantShares): JobEntry | undefined {
    const running = new Map<string, number>();
    for (const { job } of this.running()) running.set(tenantOf(job), (running.get(tenantOf(job)) ?? 0) + 1);
    const next = nextJob(this.#queues.candidates(), this.#accounts, running, shares);
    return next === undefined ? undefined : this.#entries.get(next.id);
  }

  /** Waiting jobs, of one tenant or of all. */
  queuedCount(tenant?: string): number {
    return tenant === undefined ? this.#queues.size : this.#queues.lengthOf(tenant);
  }

  /** Waiting jobs whose deadline is over at `nowMs` of the wall clock. */
  overdue(nowMs: number): readonly JobEntry[] {
    const waiting = [...this.#queues.ids()].flatMap((id) => this.#entries.get(id) ?? []);
    return waiting.filter(({ job }) => (job.deadlineAtMs ?? Infinity) < nowMs);
  }

  running(): readonly JobEntry[] {
    return this.#sorted(this.#running);
  }

  finished(): readonly JobEntry[] {
    return [...this.#entries.values()].filter(({ job }) => isFinal(job.state));
  }

  /** Jobs submitted before `number`, newest first, at most `jobsMax`. */
  before(number: number, jobsMax: number, deadOnly: boolean): readonly JobEntry[] {
    const earlier = [...this.#entries.values()].filter(
      (entry) => numberOf(entry) < number && (!deadOnly || isDead(entry.job.state)),
    );
    return earlier.sort((one, other) => numberOf(other) - numberOf(one)).slice(0, jobsMax);
  }

  counts(): Record<JobStateKind, number> {
    const counts = Object.fromEntries(JOB_STATE_KINDS.map((kind) => [kind, 0])) as Record<JobStateKind, number>;
    for (const { job } of this.#entries.values()) counts[job.state.kind] += 1;
    return counts;
  }

  deadCount(): number {
    return this.finished().filter(({ job }) => isDead(job.state)).length;
  }

  /** Every running job's lease: the key's revision is the lease's. */
  leases(): readonly (LeaseSighting & { readonly id: string })[] {
    return this.running().flatMap((entry) => {
      const { id, state, leaseMs } = entry.job;
      if (state.kind !== "running") return [];
      return [{ id, number: numberOf(entry), token: state.token, revision: entry.revision, leaseMs }];
    });
  }

  #sorted(ids: ReadonlySet<string>): readonly JobEntry[] {
    const entries = [...ids].flatMap((id) => this.#entries.get(id) ?? []);
    return entries.sort((one, other) => numberOf(one) - numberOf(other));
  }
}

function waitingOf(entry: JobEntry): Waiting {
  const { job } = entry;
  return {
    id: job.id,
    number: numberOf(entry),
    tenant: tenantOf(job),
    turnMs: turnMs(job),
    isBegun: job.isBegun ?? false,
  };
}

export function numberOf({ job, revision }: JobEntry): number {
  return job.number ?? revision;
}
