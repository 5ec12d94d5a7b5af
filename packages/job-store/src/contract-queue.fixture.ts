// What every job store must do about tenants, turns, deadlines and dead jobs: cases of the contract suite.
import { expect, test } from "vitest";
import { limit } from "@moevie/contracts";
import {
  FACTS,
  LONG_LEASE_MS,
  SPEC,
  claimed,
  reasonOf,
  until,
  type Again,
  type Start,
} from "./contract-parts.fixture.ts";
import type { EndedJob } from "./ended-jobs.ts";
import type { JobStore } from "./job-store.ts";
import { EQUAL_SHARES } from "./queue-order.ts";

export function turnCases(start: Start, again: Again): void {
  test("tenants take turns, whoever came first with many; inside a tenant high goes before normal before low", async () => {
    const one = await start();
    const names = new Map<string, string>();
    const submit = async (name: string, options: Parameters<typeof one.store.submit>[1]): Promise<void> => {
      names.set((await one.store.submit(SPEC, options)).id, name);
    };
    for (const name of ["a1", "a2", "a3"]) await submit(name, { tenant: "a" });
    await submit("b-low", { tenant: "b", priority: "low" });
    await submit("b-normal", { tenant: "b" });
    await submit("b-high", { tenant: "b", priority: "high" });
    const other = await again(one);
    const order: (string | undefined)[] = [];
    for (const store of [one.store, other, one.store, other, one.store, other]) {
      await until(store, async () => (await store.counts()).running === order.length);
      order.push(names.get((await claimed(store)).id));
    }
    expect(order).toEqual(["a1", "b-high", "a2", "b-normal", "a3", "b-low"]);
  });
  test("a request id is its tenant's own", async () => {
    const { store } = await start();
    const asked = { requestId: "r", requestDigest: "body" };
    const one = await store.submit(SPEC, { ...asked, tenant: "a" });
    const other = await store.submit(SPEC, { ...asked, tenant: "b" });
    expect([one.id === other.id, one.tenant, other.tenant, other.repeated]).toEqual([false, "a", "b", false]);
    expect((await store.submit(SPEC, { ...asked, tenant: "a" })).id).toBe(one.id);
  });
  test("a job given back is taken up before others and not charged twice", async () => {
    const { store } = await start();
    const begun = await store.submit(SPEC, { tenant: "a" });
    const lease = await claimed(store);
    const theirs = await store.submit(SPEC, { tenant: "b" });
    const next = await store.submit(SPEC, { tenant: "a", priority: "high" });
    await store.release(lease);
    const order = [await claimed(store), await claimed(store), await claimed(store)].map(({ id }) => id);
    expect(order).toEqual([begun.id, theirs.id, next.id]);
  });
  test("a job that is deleted stays charged to its tenant", async () => {
    const { store } = await start();
    await store.submit(SPEC, { tenant: "a" });
    const lease = await claimed(store);
    await until(store, async () => (await store.counts()).running === 1);
    await store.submit(SPEC, { tenant: "a" });
    const theirs = await store.submit(SPEC, { tenant: "b" });
    await store.delete(lease.id);
    await until(store, async () => (await store.counts()).running === 0);
    expect((await claimed(store)).id).toBe(theirs.id);
  });
}

/** Jobs that end in other ways than by their owner's `finish`, each as often as it is to be told. */
const ENDS: readonly { readonly told: EndedJob; readonly end: (store: JobStore) => Promise<unknown> }[] = [
  {
    told: { from: "queued", outcome: "failed", reason: "DEADLINE" },
    end: (store) => store.submit(SPEC, { deadlineMs: 1 }),
  },
  {
    told: { from: "queued", outcome: "cancelled", reason: "" },
    end: async (store) => store.requestCancel((await store.submit(SPEC)).id),
  },
  {
    told: { from: "running", outcome: "cancelled", reason: "" },
    end: async (store) => {
      await store.submit(SPEC);
      const lease = await claimed(store);
      await store.requestCancel(lease.id);
      await store.release(lease);
    },
  },
  {
    told: { from: "running", outcome: "failed", reason: "PEER_UNAVAILABLE" },
    end: async (store) => {
      const { id } = await store.submit(SPEC);
      for (let attempt = 1; attempt <= limit("jobAttemptsMax"); attempt += 1) {
        await claimed(store, 30);
        await until(store, async () => (await store.get(id)).state.kind !== "running");
      }
    },
  },
];

export function endCountCases(start: Start, again: Again): void {
  test.each(ENDS)("an end that no owner wrote is told once over all openers: $told", async ({ told, end }) => {
    const one = await start();
    const heard: EndedJob[] = [];
    const open = (): Promise<JobStore> => again(one, { onEnded: (ended) => void heard.push(ended) });
    const [store, other] = [await open(), await open()];
    // What it ended it would tell nobody.
    await one.store.close();
    await end(store);
    await until(store, async () => (await other.counts())[told.outcome] === 1);
    await store.submit(SPEC);
    await store.finish(await claimed(store), { kind: "completed", artefact: FACTS });
    await expect.poll(() => heard).toEqual([told]);
  });
}

export function boundCases(start: Start, again: Again): void {
  test("a tenant's bounds are its own: more jobs are refused by name, running ones make its others wait", async () => {
    const one = await start();
    const store = await again(one, { shares: { ...EQUAL_SHARES, queuedMax: 2, runningMax: 1 } });
    const [first, second] = [await store.submit(SPEC, { tenant: "a" }), await store.submit(SPEC, { tenant: "a" })];
    const refused = store.submit(SPEC, { tenant: "a" });
    await expect(refused).rejects.toMatchObject({
      reason: "TENANT_QUEUE_FULL",
      retryAfterMs: limit("queueRetryAfterMs"),
    });
    await expect(refused).rejects.toThrow('Tenant "a" has 2 jobs waiting; allowed: 2 (MOEVIE_TENANT_QUEUED_MAX).');
    const theirs = await store.submit(SPEC, { tenant: "b" });
    const lease = await claimed(store);
    expect([lease.id, (await claimed(store)).id]).toEqual([first.id, theirs.id]);
    expect(await store.claimNext({ owner: "test", leaseMs: LONG_LEASE_MS })).toBeNull();
    await store.finish(lease, { kind: "completed", artefact: FACTS });
    expect((await claimed(store)).id).toBe(second.id);
  });
  test("as many jobs of a tenant run as may, however many claimants ask at the same moment", async () => {
    const one = await start();
    const shares = { ...EQUAL_SHARES, runningMax: 2 };
    const claimants = [await again(one, { shares }), await again(one, { shares }), await again(one, { shares })];
    const ids = new Set<string>();
    for (let job = 0; job < 12; job++) ids.add((await one.store.submit(SPEC, { tenant: "a" })).id);
    const done = new Set<string>();
    while (done.size < ids.size) {
      const claims = await Promise.all(
        claimants.map(async (store) => ({
          store,
          lease: await store.claimNext({ owner: "test", leaseMs: LONG_LEASE_MS }),
        })),
      );
      const held = claims.filter(({ lease }) => lease !== null);
      expect(held.length).toBeLessThanOrEqual(2);
      for (const { store, lease } of held) {
        if (lease === null) continue;
        expect(lease.job.attempt).toBe(1);
        await store.finish(lease, { kind: "completed", artefact: FACTS });
        done.add(lease.id);
      }
    }
    expect(done).toEqual(ids);
  });
}

export function deadlineCases(start: Start): void {
  test("a job that waits past its deadline fails with the reason; a claimed one carries the time left", async () => {
    const { store } = await start();
    const soon = await store.submit(SPEC, { deadlineMs: 3_600_000 });
    const lease = await claimed(store);
    expect(lease.id).toBe(soon.id);
    expect(lease.remainingMs).toBeGreaterThan(3_500_000);
    expect(lease.remainingMs).toBeLessThanOrEqual(3_600_000);
    const { id } = await store.submit(SPEC, { deadlineMs: 1 });
    const free = await store.submit(SPEC);
    await until(store, async () => (await store.get(id)).state.kind === "failed");
    expect((await store.get(id)).state).toMatchObject({ error: { reason: "DEADLINE" } });
    expect((await store.get(free.id)).state.kind).toBe("queued");
    expect(await reasonOf(store.retry(id))).toBe("VIDEO_NOT_DEAD");
  });
  test("a job that failed for no fault of its caller is listed as dead and runs again with its attempts and deadline anew", async () => {
    const { store } = await start();
    const { id, deadlineAtMs = 0 } = await store.submit(SPEC, { deadlineMs: 3_600_000 });
    const wrong = await store.submit(SPEC);
    const fail = async (reason: "PEER_UNAVAILABLE" | "UNSUPPORTED"): Promise<void> => {
      const error = { reason, message: "x" };
      await store.finish(await claimed(store), { kind: "failed", error });
    };
    await fail("PEER_UNAVAILABLE");
    await fail("UNSUPPORTED");
    const dead = async (): Promise<string[]> =>
      (await store.list({ pageSize: 9, deadOnly: true })).jobs.map((job) => job.id);
    expect(await dead()).toEqual([id]);
    expect(await store.deadCount()).toBe(1);
    expect(await reasonOf(store.retry(wrong.id))).toBe("VIDEO_NOT_DEAD");
    const again = await store.retry(id);
    expect(again).toMatchObject({ state: { kind: "queued" }, attempt: 0, progress: { stage: "queue", percent: 0 } });
    expect(again.deadlineAtMs).toBeGreaterThanOrEqual(deadlineAtMs);
    expect(await dead()).toEqual([]);
    expect(await store.deadCount()).toBe(0);
    const lease = await claimed(store);
    expect([lease.id, lease.job.attempt]).toEqual([id, 1]);
    await store.finish(lease, { kind: "completed", artefact: FACTS });
    const states = (await store.eventsAfter(id, 0)).map(({ state }) => state);
    expect(states).toEqual(["queued", "running", "failed", "queued", "running", "completed"]);
  });
}
