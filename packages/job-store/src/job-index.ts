// All records of the bucket as this process last saw them, kept by a watch and by its own writes: the order of the queue, lists,
// counts and the leases to be observed come from it. A stale entry costs a refused write, never a wrong one.
import { JOB_STATE_KINDS, isFinal, type JobStateKind } from "./job-state.ts";
import type { JobEntry } from "./nats-record.ts";
import type { LeaseSighting } from "./lease-watch.ts";

export class JobIndex {
  readonly #entries = new Map<string, JobEntry>();
  readonly #queued = new Set<string>();
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
    this.#queued[kind === "queued" ? "add" : "delete"](id);
    this.#running[kind === "running" ? "add" : "delete"](id);
    return true;
  }

  /** Forgets a job removed at `revision` or right after it; false when it was not known. */
  remove(id: string, revision: number, keepMark: boolean): boolean {
    if ((this.#entries.get(id)?.revision ?? 0) > revision) return false;
    if (keepMark) this.#removed.set(id, revision);
    else this.#removed.delete(id);
    this.#queued.delete(id);
    this.#running.delete(id);
    return this.#entries.delete(id);
  }

  ids(): IterableIterator<string> {
    return this.#entries.keys();
  }

  /** Waiting jobs, the one that was submitted first in front. */
  queued(): readonly JobEntry[] {
    return this.#sorted(this.#queued);
  }

  running(): readonly JobEntry[] {
    return this.#sorted(this.#running);
  }

  finished(): readonly JobEntry[] {
    return [...this.#entries.values()].filter(({ job }) => isFinal(job.state));
  }

  /** Jobs submitted before `number`, newest first, at most `jobsMax`. */
  before(number: number, jobsMax: number): readonly JobEntry[] {
    const earlier = [...this.#entries.values()].filter((entry) => numberOf(entry) < number);
    return earlier.sort((one, other) => numberOf(other) - numberOf(one)).slice(0, jobsMax);
  }

  counts(): Record<JobStateKind, number> {
    const counts = Object.fromEntries(JOB_STATE_KINDS.map((kind) => [kind, 0])) as Record<JobStateKind, number>;
    for (const { job } of this.#entries.values()) counts[job.state.kind] += 1;
    return counts;
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

export function numberOf({ job, revision }: JobEntry): number {
  return job.number ?? revision;
}
