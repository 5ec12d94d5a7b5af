// The order of the queue: fair over tenants whatever one of them does, bounded inside a tenant; and both of its users agree with it.
import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { SPEC } from "./contract-parts.fixture.ts";
import { simulate, type Arrival } from "./queue-simulation.fixture.ts";
import { EQUAL_SHARES, NO_ACCOUNTS, charged, costOf, joined, nextJob, turnMs, type Waiting } from "./queue-order.ts";
import { TenantQueues } from "./tenant-queues.ts";

const HOUR_MS = 3_600_000;
const tenant = fc.constantFrom("a", "b", "c");
const waiting = fc.uniqueArray(
  fc.record({
    number: fc.integer({ min: 1, max: 999 }),
    tenant,
    turnMs: fc.integer({ min: 0, max: 20 }),
    isBegun: fc.boolean(),
  }),
  { selector: ({ number }) => number, maxLength: 40 },
);
const accounts = fc
  .array(fc.record({ tenant, cost: fc.integer({ min: 1, max: 9 }) }), { maxLength: 12 })
  .map((claims) => claims.reduce((sum, claim) => charged(sum, claim, EQUAL_SHARES), NO_ACCOUNTS));

function turn(spec: typeof SPEC, priority: "high" | "normal" | "low", createdAtMs: number): number {
  return turnMs({ spec, priority, createdAtMs });
}

function withIds(jobs: readonly Omit<Waiting, "id">[]): Waiting[] {
  return jobs.map((job) => ({ ...job, id: String(job.number) }));
}

describe("one choice", () => {
  test("the first of each tenant and those begun are enough to choose from, in whatever order they come and go", () => {
    fc.assert(
      fc.property(waiting, accounts, fc.array(fc.nat({ max: 39 })), (given, now, gone) => {
        const jobs = withIds(given);
        const queues = new TenantQueues();
        for (const job of jobs) queues.add(job);
        for (const at of gone) queues.remove(jobs[at]?.id ?? "");
        const left = jobs.filter((_, at) => !gone.includes(at));
        const running = new Map<string, number>();
        const best = nextJob(left, now, running, EQUAL_SHARES);
        expect(nextJob(left.toReversed(), now, running, EQUAL_SHARES)).toEqual(best);
        expect(nextJob(queues.candidates(), now, running, EQUAL_SHARES)).toEqual(best);
        expect(queues.size).toBe(left.length);
      }),
      {
        examples: [
          // Found once: by submit alone the first's later job is before the second's, and that before the first's first.
          [
            [
              { number: 2, tenant: "c", turnMs: 0, isBegun: false },
              { number: 3, tenant: "a", turnMs: 0, isBegun: false },
              { number: 1, tenant: "a", turnMs: 1, isBegun: false },
            ],
            NO_ACCOUNTS,
            [],
          ],
        ],
      },
    );
  });

  test("a tenant with as many running jobs as it may have is passed over; a job that was begun goes first", () => {
    const jobs = withIds([
      { number: 1, tenant: "a", turnMs: 0, isBegun: false },
      { number: 2, tenant: "b", turnMs: 0, isBegun: false },
      { number: 3, tenant: "b", turnMs: 0, isBegun: true },
    ]);
    const shares = { ...EQUAL_SHARES, runningMax: 2 };
    expect(nextJob(jobs, NO_ACCOUNTS, new Map(), shares)?.number).toBe(3);
    expect(nextJob(jobs, NO_ACCOUNTS, new Map([["b", 2]]), shares)?.number).toBe(1);
    expect(
      nextJob(
        jobs,
        NO_ACCOUNTS,
        new Map([
          ["a", 2],
          ["b", 2],
        ]),
        shares,
      ),
    ).toBeUndefined();
  });

  test("among a tenant's jobs priority and length count for a while and age for ever", () => {
    const long = { ...SPEC, seconds: 30, steps: 100 };
    expect(turn(SPEC, "high", HOUR_MS / 12)).toBeLessThan(turn(SPEC, "normal", 0));
    expect(turn(SPEC, "normal", 60_000)).toBeLessThan(turn(long, "normal", 0));
    expect(turn(long, "low", 0)).toBeLessThan(turn({ ...SPEC, width: 32, height: 32 }, "high", 1.5 * HOUR_MS));
    expect(costOf({ ...SPEC, guidance: 1 })).toBe((4 * 1280 * 720 * 48) / 1e6);
  });

  test("accounts of claims made at the same moment join to the same in any order, and forget who is behind", () => {
    fc.assert(
      fc.property(accounts, accounts, accounts, (one, other, third) => {
        expect(joined(one, other)).toEqual(joined(other, one));
        expect(joined(joined(one, other), third)).toEqual(joined(one, joined(other, third)));
        expect(joined(one, one)).toEqual(one);
        const all = joined(one, other);
        for (const start of Object.values(all.ahead)) expect(start).toBeGreaterThan(all.now);
      }),
    );
    let many = NO_ACCOUNTS;
    for (let at = 0; at < 2000; at += 1) many = charged(many, { tenant: `t${at}`, cost: 1 + at / 1e4 }, EQUAL_SHARES);
    expect(Object.keys(many.ahead).length).toBe(256);
  });
});

describe("in virtual time", () => {
  const NINE = Array.from({ length: 9 }, (_, at) => `tenant-${at}`);
  const SERVICE = 10;
  /** Each of nine asks for one job every 15 services, at times of its own: 60 % of one server. */
  const usual: Arrival[] = NINE.flatMap((name, at) =>
    Array.from({ length: 60 }, (_, turn) => ({
      tenant: name,
      at: turn * 15 * SERVICE + ((at * 37 + turn * 61) % (15 * SERVICE)),
      service: SERVICE,
    })),
  );
  const flood: Arrival[] = Array.from({ length: 1000 }, () => ({ tenant: "flooder", at: 0, service: SERVICE }));

  test("a flood of 1,000 jobs makes the other nine wait at most half as long again and one job's service", () => {
    const before = simulate(usual, EQUAL_SHARES);
    const during = simulate([...flood, ...usual], EQUAL_SHARES);
    const waits = NINE.map((name) => [before.meanWait(name), during.meanWait(name)] as const);
    console.info(waits.map(([calm, flooded]) => `${calm.toFixed(1)} → ${flooded.toFixed(1)}`).join(", "));
    for (const [calm, flooded] of waits) expect(flooded).toBeLessThanOrEqual(1.5 * calm + SERVICE);
    expect(during.accountsAheadMax).toBeLessThanOrEqual(10);
  });

  test("ten tenants that always have jobs get equal service, short jobs or long; with weights, in proportion", () => {
    const names = ["flooder", ...NINE];
    const jobs = names.flatMap((name, at) =>
      Array.from({ length: name === "flooder" ? 1000 : 200 }, () => ({
        tenant: name,
        at: 0,
        service: 2 + (at % 4) * 6,
      })),
    );
    const equal = simulate(jobs, EQUAL_SHARES, 4000).served(names);
    const jain = jainIndex(equal);
    const weighted = simulate(jobs, { ...EQUAL_SHARES, weights: { flooder: 3 } }, 4000).served(names);
    console.info(`Jain index ${jain.toFixed(4)}; weighted ${weighted.join(", ")}`);
    expect(jain).toBeGreaterThanOrEqual(0.95);
    expect(jainIndex(weighted.map((service, at) => service / (at === 0 ? 3 : 1)))).toBeGreaterThanOrEqual(0.95);
  });
});

function jainIndex(shares: readonly number[]): number {
  const sum = shares.reduce((all, share) => all + share, 0);
  return sum ** 2 / (shares.length * shares.reduce((all, share) => all + share ** 2, 0));
}
