// Waiting jobs of an index, one sorted queue a tenant: a new job finds its place by halving, and a claim looks at the first of each
// tenant only. Knows no store.
import { byTurn, type Waiting } from "./queue-order.ts";

export class TenantQueues {
  readonly #queues = new Map<string, Waiting[]>();
  readonly #byId = new Map<string, Waiting>();
  readonly #begun = new Map<string, Waiting>();

  get size(): number {
    return this.#byId.size;
  }

  add(job: Waiting): void {
    this.remove(job.id);
    this.#byId.set(job.id, job);
    if (job.isBegun) this.#begun.set(job.id, job);
    const queue = this.#queues.get(job.tenant) ?? [];
    this.#queues.set(job.tenant, queue);
    queue.splice(placeOf(queue, job), 0, job);
  }

  remove(id: string): void {
    const job = this.#byId.get(id);
    if (job === undefined) return;
    this.#byId.delete(id);
    this.#begun.delete(id);
    const queue = this.#queues.get(job.tenant) ?? [];
    queue.splice(placeOf(queue, job), 1);
    if (queue.length === 0) this.#queues.delete(job.tenant);
  }

  lengthOf(tenant: string): number {
    return this.#queues.get(tenant)?.length ?? 0;
  }

  ids(): Iterable<string> {
    return this.#byId.keys();
  }

  /** Those that were begun, and the first of every tenant. */
  *candidates(): Generator<Waiting> {
    yield* this.#begun.values();
    for (const [first] of this.#queues.values()) if (first !== undefined) yield first;
  }
}

/** Where `job` is, or would be. */
function placeOf(queue: readonly Waiting[], job: Waiting): number {
  let [from, to] = [0, queue.length];
  while (from < to) {
    const middle = (from + to) >> 1;
    const other = queue[middle];
    if (other !== undefined && byTurn(other, job) < 0) from = middle + 1;
    else to = middle;
  }
  return from;
}
