// Whose job is next: start-time fair queueing over tenants (Goyal, Vin and Cheng, 1996), and among a tenant's own jobs priority, length and
// age. Pure: no clock, no store. docs/operations/job-store.md tells operators what follows from it.
import type { JobSpec } from "./job-store.ts";

export const JOB_PRIORITIES = ["high", "normal", "low"] as const;
export type JobPriority = (typeof JOB_PRIORITIES)[number];
export const DEFAULT_TENANT = "default";

/** What the operator grants tenants; every process of a cluster has the same. */
export interface TenantShares {
  /** Above 0; a tenant that is not named has 1. */
  readonly weights: Readonly<Record<string, number>>;
  /** Jobs of one tenant that may wait; Infinity: no bound but the queue's. */
  readonly queuedMax: number;
  /** Jobs of one tenant that may run at once, over all schedulers. */
  readonly runningMax: number;
}
export const EQUAL_SHARES: TenantShares = { weights: {}, queuedMax: Infinity, runningMax: Infinity };

/**
 * What tenants were given so far, in virtual time: megapixel-steps over weight. Every claim writes it onto the job it claims, as it is with
 * that job, so the newest claim holds it and it is kept nowhere else.
 */
export interface QueueAccounts {
  /** Grows with every job that was charged. */
  readonly claim: number;
  /** Virtual time: the latest start of a job that was charged. */
  readonly now: number;
  /** Tenant → virtual start of its next job, for those that were given more than their share up to now. */
  readonly ahead: Readonly<Record<string, number>>;
}
export const NO_ACCOUNTS: QueueAccounts = { claim: 0, now: 0, ahead: {} };

/** A job that waits, as far as its turn goes. */
export interface Waiting {
  readonly id: string;
  /** Place in the order of submission. */
  readonly number: number;
  readonly tenant: string;
  /** `turnMs` of it. */
  readonly turnMs: number;
  /** It ran before and lost its lease or was given back: its tenant was charged. */
  readonly isBegun: boolean;
}

/** Tenants ahead that accounts remember: one that is forgotten has its share again a little early. */
const TENANTS_AHEAD_MAX = 256;
/** How much later than it was submitted a job has its turn, by its priority. */
const PRIORITY_MS: Readonly<Record<JobPriority, number>> = { high: 0, normal: 600_000, low: 3_600_000 };
/** And for each doubling of its cost, as often as this at most. */
const DOUBLING_MS = 30_000;
const DOUBLINGS_MAX = 20;

/** What a job is charged, in megapixel-steps: steps × branches × width × height × frames of the clip. */
export function costOf({ steps, guidance, width, height, seconds, fps }: JobSpec): number {
  const cost = (steps * (guidance > 1 ? 2 : 1) * width * height * seconds * fps) / 1e6;
  return cost > 0 ? cost : 1;
}

/**
 * Order among a tenant's own jobs, least first: the time of its submit and what it waits for priority and length. That is fixed at submit and
 * bounded, so no stream of later jobs passes a job for ever.
 */
export function turnMs(job: {
  readonly spec: JobSpec;
  readonly priority?: JobPriority;
  readonly createdAtMs: number;
}): number {
  const doublings = Math.min(Math.max(Math.log2(costOf(job.spec)), 0), DOUBLINGS_MAX);
  return Math.round(job.createdAtMs + PRIORITY_MS[job.priority ?? "normal"] + doublings * DOUBLING_MS);
}

/** Orders one tenant's jobs. */
export function byTurn(one: Pick<Waiting, "turnMs" | "number">, other: Pick<Waiting, "turnMs" | "number">): number {
  return one.turnMs - other.turnMs || one.number - other.number;
}

/**
 * The job that is next: one that was begun, or else the first of the tenant with the least virtual start; ties by submit. `waiting` holds the
 * begun ones and at least the first of every tenant; a tenant with as many `running` as it may have is passed over.
 */
export function nextJob(
  waiting: Iterable<Waiting>,
  accounts: QueueAccounts,
  running: ReadonlyMap<string, number>,
  { runningMax }: TenantShares,
): Waiting | undefined {
  const firsts = new Map<string, Waiting>();
  let begun: Waiting | undefined;
  for (const job of waiting) {
    if ((running.get(job.tenant) ?? 0) >= runningMax) continue;
    const first = firsts.get(job.tenant);
    if (job.isBegun) begun = begun === undefined || job.number < begun.number ? job : begun;
    else if (first === undefined || byTurn(job, first) < 0) firsts.set(job.tenant, job);
  }
  // Tenants are compared by their first jobs alone: comparing every job with every other one is no order.
  return (
    begun ??
    [...firsts.values()].reduce<Waiting | undefined>(
      (best, job) => (isBefore(job, best, accounts) ? job : best),
      undefined,
    )
  );
}

function isBefore(job: Waiting, best: Waiting | undefined, accounts: QueueAccounts): boolean {
  if (best === undefined) return true;
  return (startOf(accounts, job.tenant) - startOf(accounts, best.tenant) || job.number - best.number) < 0;
}

function startOf({ now, ahead }: QueueAccounts, tenant: string): number {
  return Math.max(now, Object.hasOwn(ahead, tenant) ? (ahead[tenant] ?? 0) : 0);
}

/** The accounts once a job of `cost` was claimed that was not begun before. */
export function charged(
  accounts: QueueAccounts,
  { tenant, cost }: { readonly tenant: string; readonly cost: number },
  { weights }: TenantShares,
): QueueAccounts {
  const start = startOf(accounts, tenant);
  const weight = Object.hasOwn(weights, tenant) ? (weights[tenant] ?? 1) : 1;
  return {
    claim: accounts.claim + 1,
    now: start,
    ahead: kept(
      [...Object.entries(accounts.ahead).filter(([name]) => name !== tenant), [tenant, start + cost / weight]],
      start,
    ),
  };
}

/** What two claims at the same moment hold between them: in whatever order and however often, the same. */
export function joined(one: QueueAccounts, other: QueueAccounts): QueueAccounts {
  const now = Math.max(one.now, other.now);
  const ahead = new Map(Object.entries(one.ahead));
  for (const [tenant, start] of Object.entries(other.ahead)) ahead.set(tenant, Math.max(start, ahead.get(tenant) ?? 0));
  return { claim: Math.max(one.claim, other.claim), now, ahead: kept([...ahead], now) };
}

function kept(ahead: readonly (readonly [string, number])[], now: number): Readonly<Record<string, number>> {
  const still = ahead.filter(([, start]) => start > now);
  if (still.length > TENANTS_AHEAD_MAX)
    still.splice(0, still.length, ...still.toSorted(([, one], [, other]) => other - one).slice(0, TENANTS_AHEAD_MAX));
  return Object.fromEntries(still);
}
