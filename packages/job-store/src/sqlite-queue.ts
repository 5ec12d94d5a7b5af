// The queue in the SQLite file: who may still submit, whose turn it is, what a claim is charged. Runs inside a transaction of
// sqlite-records.ts; reads indexes and never more than one whole row.
import type { DatabaseSync } from "node:sqlite";
import type { JobSpec } from "./job-store.ts";
import { queueFull, tenantQueueFull } from "./queue-room.ts";
import {
  NO_ACCOUNTS,
  charged,
  costOf,
  nextJob,
  type QueueAccounts,
  type TenantShares,
  type Waiting,
} from "./queue-order.ts";

/**
 * One look at the index for each tenant with waiting jobs, however many wait. The index is named: left to choose, SQLite takes the one by state
 * and reads every record that waits, 40 times as long with a thousand of them.
 */
const BY_TURN = "FROM jobs INDEXED BY jobs_by_turn WHERE state = 'queued'";
const CANDIDATES = `
WITH RECURSIVE waiting (tenant) AS (
  SELECT (SELECT tenant ${BY_TURN} ORDER BY tenant LIMIT 1)
  UNION ALL
  SELECT (SELECT tenant ${BY_TURN} AND tenant > waiting.tenant ORDER BY tenant LIMIT 1) FROM waiting WHERE tenant IS NOT NULL
)
SELECT id, number, tenant, turn_ms AS turnMs, begun AS isBegun FROM jobs WHERE number IN (
  SELECT (SELECT number ${BY_TURN} AND jobs.tenant = waiting.tenant ORDER BY turn_ms, number LIMIT 1)
  FROM waiting WHERE tenant IS NOT NULL
  UNION SELECT number FROM jobs INDEXED BY jobs_begun WHERE state = 'queued' AND begun = 1
)`;

export class SqliteQueue {
  readonly #db: DatabaseSync;
  readonly #queuedMax: number;
  readonly #shares: TenantShares;

  constructor(db: DatabaseSync, queuedMax: number, shares: TenantShares) {
    this.#db = db;
    this.#queuedMax = queuedMax;
    this.#shares = shares;
  }

  /** Throws QUEUE_FULL and TENANT_QUEUE_FULL. */
  checkRoom(tenant: string): void {
    if (this.#count("SELECT count(*) AS jobs FROM jobs WHERE state = 'queued'") >= this.#queuedMax)
      throw queueFull(this.#queuedMax);
    const { queuedMax } = this.#shares;
    if (queuedMax === Infinity) return;
    const own = this.#count("SELECT count(*) AS jobs FROM jobs WHERE state = 'queued' AND tenant = ?", tenant);
    if (own >= queuedMax) throw tenantQueueFull(tenant, queuedMax);
  }

  /** The job whose turn it is. */
  next(): Waiting | undefined {
    const running = new Map<string, number>();
    if (this.#shares.runningMax !== Infinity) {
      const rows = this.#db.prepare(
        "SELECT tenant, count(*) AS jobs FROM jobs WHERE state = 'running' GROUP BY tenant",
      );
      for (const { tenant, jobs } of rows.all()) running.set(String(tenant), Number(jobs));
    }
    const waiting = this.#db.prepare(CANDIDATES).all() as unknown as readonly (Omit<Waiting, "isBegun"> & {
      isBegun: number;
    })[];
    return nextJob(
      waiting.map((job) => ({ ...job, isBegun: job.isBegun === 1 })),
      this.#accounts(),
      running,
      this.#shares,
    );
  }

  /** Marks a job as begun and charges its tenant, if that was not done before. */
  charge({ number, tenant, isBegun }: Waiting, spec: JobSpec): void {
    if (isBegun) return;
    const accounts = charged(this.#accounts(), { tenant, cost: costOf(spec) }, this.#shares);
    this.#db
      .prepare("UPDATE jobs SET begun = 1, claim = ?, accounts_json = ? WHERE number = ?")
      .run(accounts.claim, JSON.stringify(accounts), number);
  }

  /** What tenants were given outlives the jobs that `remove` removes, while there are others. */
  keepAccounts(remove: () => void): void {
    const newest = this.#newest();
    remove();
    if (newest === undefined || this.#newest()?.["claim"] === newest["claim"]) return;
    this.#db
      .prepare(
        `UPDATE jobs SET claim = ?, accounts_json = ? WHERE number = coalesce(
           (SELECT number FROM jobs WHERE claim IS NOT NULL ORDER BY claim DESC LIMIT 1), (SELECT number FROM jobs LIMIT 1))`,
      )
      .run(Number(newest["claim"]), String(newest["accounts_json"]));
  }

  #accounts(): QueueAccounts {
    const row = this.#newest();
    return row === undefined ? NO_ACCOUNTS : (JSON.parse(String(row["accounts_json"])) as QueueAccounts);
  }

  #newest(): Record<string, unknown> | undefined {
    const query = "SELECT claim, accounts_json FROM jobs WHERE claim IS NOT NULL ORDER BY claim DESC LIMIT 1";
    return this.#db.prepare(query).get();
  }

  #count(query: string, ...values: readonly string[]): number {
    return Number(this.#db.prepare(query).get(...values)?.["jobs"]);
  }
}
