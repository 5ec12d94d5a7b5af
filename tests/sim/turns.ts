// Whose turn it is, as docs/operations/job-store.md tells it, kept apart from the code that decides it: a job that was begun goes first,
// then the tenant that was given least, counted from where the others are when it comes back; its own jobs by their turn.
import type { JobSpec } from "@moevie/job-store";

export interface Waiter {
  readonly id: string;
  readonly number: number;
  readonly tenant: string;
  readonly turnMs: number;
  readonly isBegun: boolean;
  readonly spec: JobSpec;
}

export class Turns {
  /** Tenant → where its next job starts, in megapixel-steps. */
  readonly #next = new Map<string, number>();
  /** Where the job began that was charged last. */
  #now = 0;
  /** The job that a claim takes. */
  due(waiting: readonly Waiter[]): Waiter | undefined {
    const begun = waiting.filter(({ isBegun }) => isBegun).sort((one, other) => one.number - other.number);
    if (begun[0] !== undefined) return begun[0];
    const firsts = new Map<string, Waiter>();
    for (const job of waiting.toSorted((one, other) => one.turnMs - other.turnMs || one.number - other.number))
      if (!firsts.has(job.tenant)) firsts.set(job.tenant, job);
    const start = ({ tenant }: Waiter): number => Math.max(this.#now, this.#next.get(tenant) ?? 0);
    return [...firsts.values()].sort((one, other) => start(one) - start(other) || one.number - other.number)[0];
  }

  charge({ tenant, spec, isBegun }: Waiter): void {
    if (isBegun) return;
    const { steps, guidance, width, height, seconds, fps } = spec;
    this.#now = Math.max(this.#now, this.#next.get(tenant) ?? 0);
    const branches = guidance > 1 ? 2 : 1;
    this.#next.set(tenant, this.#now + (steps * branches * width * height * seconds * fps) / 1e6);
  }
}
