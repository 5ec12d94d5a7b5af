// One server in virtual time that takes jobs in the order of queue-order.ts. Fixture only.
import { NO_ACCOUNTS, charged, nextJob, type TenantShares } from "./queue-order.ts";
import { TenantQueues } from "./tenant-queues.ts";

export interface Arrival {
  readonly tenant: string;
  readonly at: number;
  readonly service: number;
}

export interface Simulated {
  readonly accountsAheadMax: number;
  meanWait(tenant: string): number;
  served(tenants: readonly string[]): number[];
}

export function simulate(arrivals: readonly Arrival[], shares: TenantShares, until = Infinity): Simulated {
  const coming = arrivals.toSorted((one, other) => one.at - other.at);
  const queues = new TenantQueues();
  const waits = new Map<string, number[]>();
  const service = new Map<string, number>();
  let [time, next, accounts, accountsAheadMax] = [0, 0, NO_ACCOUNTS, 0];
  while ((next < coming.length || queues.size > 0) && time < until) {
    for (let job = coming[next]; job !== undefined && job.at <= time; job = coming[++next])
      queues.add({ id: String(next), number: next, tenant: job.tenant, turnMs: job.at, isBegun: false });
    const turn = nextJob(queues.candidates(), accounts, new Map(), shares);
    const job = coming[turn?.number ?? next];
    if (job === undefined) break;
    if (turn === undefined) {
      time = job.at;
      continue;
    }
    queues.remove(turn.id);
    accounts = charged(accounts, { tenant: turn.tenant, cost: job.service }, shares);
    accountsAheadMax = Math.max(accountsAheadMax, Object.keys(accounts.ahead).length);
    waits.set(turn.tenant, [...(waits.get(turn.tenant) ?? []), time - job.at]);
    service.set(turn.tenant, (service.get(turn.tenant) ?? 0) + job.service);
    time += job.service;
  }
  return {
    accountsAheadMax,
    meanWait: (tenant) => {
      const all = waits.get(tenant) ?? [];
      return all.reduce((sum, wait) => sum + wait, 0) / all.length;
    },
    served: (tenants) => tenants.map((tenant) => service.get(tenant) ?? 0),
  };
}
