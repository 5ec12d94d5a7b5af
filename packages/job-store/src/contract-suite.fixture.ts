// What every job store must do, as one suite: each implementation's test file calls it with a way to open its store.
import { rm } from "node:fs/promises";
import { afterEach, describe, expect, test } from "vitest";
import { limit } from "@moevie/contracts";
import { checkpointCases, clipCases, leftClipCases } from "./contract-files.fixture.ts";
import { chargeCases, deadlineCases, endCountCases, turnCases } from "./contract-queue.fixture.ts";
import {
  FACTS,
  LONG_LEASE_MS,
  SPEC,
  claimed,
  follow,
  reasonOf,
  until,
  type Again,
  type OpenedStore,
  type ReopenOptions,
  type Start,
} from "./contract-parts.fixture.ts";
import type { JobStore } from "./job-store.ts";

export { FACTS, SPEC, claimed, reasonOf, until, type OpenedStore } from "./contract-parts.fixture.ts";

export function jobStoreContract(name: string, open: () => Promise<OpenedStore>): void {
  const opened: OpenedStore[] = [];
  const others: JobStore[] = [];
  const start = async (): Promise<OpenedStore> => {
    const one = await open();
    opened.push(one);
    return one;
  };
  const again = async (one: OpenedStore, options?: ReopenOptions): Promise<JobStore> => {
    const other = await one.reopen(options);
    others.push(other);
    return other;
  };
  afterEach(async () => {
    for (const store of others.splice(0)) await store.close();
    for (const { store, folder } of opened.splice(0)) {
      await store.close();
      await rm(folder, { recursive: true, force: true });
    }
  });
  describe(`${name}: submit and read`, () => submitCases(start, again));
  describe(`${name}: lists and deletes`, () => listCases(start, again));
  describe(`${name}: turns`, () => turnCases(start, again));
  describe(`${name}: what tenants are charged`, () => chargeCases(start));
  describe(`${name}: deadlines and dead jobs`, () => deadlineCases(start));
  describe(`${name}: ends without an owner`, () => endCountCases(start, again));
  describe(`${name}: leases`, () => leaseCases(start, again));
  describe(`${name}: ends`, () => endCases(start));
  describe(`${name}: events`, () => eventCases(start, again));
  describe(`${name}: clips`, () => clipCases(start, again));
  describe(`${name}: clips of leases that ended`, () => leftClipCases(start, again));
  describe(`${name}: checkpoints`, () => checkpointCases(start, again));
}

function submitCases(start: Start, again: Again): void {
  test("a submitted job is read back whole by every opener", async () => {
    const one = await start();
    const job = await one.store.submit(SPEC, { traceparent: "00-a-b-01", bundleDigest: "d", warnings: ["w"] });
    const other = await again(one);
    expect(await other.get(job.id)).toMatchObject({
      id: job.id,
      spec: SPEC,
      bundleDigest: "d",
      warnings: ["w"],
      traceparent: "00-a-b-01",
      attempt: 0,
      state: { kind: "queued" },
    });
    expect(await other.counts()).toEqual({ queued: 1, running: 0, completed: 0, failed: 0, cancelled: 0 });
  });
  test("a repeated request id answers the first job, and is refused with another body", async () => {
    const { store } = await start();
    const first = await store.submit(SPEC, { requestId: "r", requestDigest: "body" });
    const second = await store.submit({ ...SPEC, seed: 8 }, { requestId: "r", requestDigest: "body" });
    expect([first.repeated, second.repeated, second.id, second.spec.seed]).toEqual([false, true, first.id, 7]);
    expect(await reasonOf(store.submit(SPEC, { requestId: "r", requestDigest: "other" }))).toBe("REQUEST_ID_REUSED");
    expect((await store.counts()).queued).toBe(1);
  });
  test("submits with one request id at the same moment, through two openers, make one job; once it is deleted the id makes another", async () => {
    const one = await start();
    const other = await again(one);
    const asked = { requestId: "r", requestDigest: "body" };
    const same = await Promise.all([one.store, other, one.store, other].map((store) => store.submit(SPEC, asked)));
    const [{ id } = { id: "" }] = same;
    expect(same.map((job) => job.id)).toEqual(same.map(() => id));
    expect(same.filter(({ repeated }) => !repeated)).toHaveLength(1);
    expect((await one.store.list({ pageSize: 9 })).jobs).toHaveLength(1);
    await other.delete(id);
    const next = await other.submit(SPEC, asked);
    expect([next.repeated, next.id === id]).toEqual([false, false]);
  });
  test("a full queue refuses with a time to wait, and takes jobs again when one is claimed", async () => {
    const one = await start();
    const small = await again(one, { queuedMax: 1 });
    await small.submit(SPEC);
    await expect(small.submit(SPEC)).rejects.toMatchObject({
      reason: "QUEUE_FULL",
      retryAfterMs: limit("queueRetryAfterMs"),
    });
    await claimed(small);
    await small.submit(SPEC);
  });
}

function listCases(start: Start, again: Again): void {
  test("pages list every job once, newest first, while jobs are added and deleted", async () => {
    const one = await start();
    const { store } = one;
    const ids: string[] = [];
    for (let index = 0; index < 5; index += 1) ids.unshift((await store.submit(SPEC)).id);
    const first = await store.list({ pageSize: 2 });
    await store.submit(SPEC);
    const second = await store.list({ pageSize: 2, pageToken: first.nextPageToken });
    const third = await store.list({ pageSize: 2, pageToken: second.nextPageToken });
    expect([...first.jobs, ...second.jobs, ...third.jobs].map((job) => job.id)).toEqual(ids);
    expect(third.nextPageToken).toBe("");
    const other = await again(one);
    await other.delete(second.jobs[0]?.id ?? "");
    const rest = await other.list({ pageSize: 9, pageToken: first.nextPageToken });
    expect(rest.jobs.map((job) => job.id)).toEqual([ids[3], ids[4]]);
    expect(await reasonOf(store.list({ pageSize: 2, pageToken: "x" }))).toBe("INVALID_FIELD");
  });
  test("a deleted job is gone with its files, and its owner's next write is refused", async () => {
    const { store } = await start();
    const { id } = await store.submit(SPEC);
    const lease = await claimed(store);
    await (await store.artefacts.createAttempt(lease)).commit();
    await store.delete(id);
    expect(await reasonOf(store.get(id))).toBe("VIDEO_NOT_FOUND");
    expect(await reasonOf(store.delete(id))).toBe("VIDEO_NOT_FOUND");
    expect(await reasonOf(store.renew(lease))).toBe("LEASE_LOST");
    expect(await store.artefacts.ids()).toEqual([]);
  });
}

function leaseCases(start: Start, again: Again): void {
  test("jobs are claimed oldest first, each by one owner only", async () => {
    const one = await start();
    const other = await again(one);
    const ids = [(await one.store.submit(SPEC)).id, (await one.store.submit(SPEC)).id];
    const leases = await Promise.all(
      [one.store, other, one.store, other].map((store) => store.claimNext({ owner: "x", leaseMs: LONG_LEASE_MS })),
    );
    expect(leases.flatMap((lease) => (lease === null ? [] : [lease.id])).sort()).toEqual(ids.sort());
  });
  test("a job whose owner fell silent is queued again with its checkpoint, and the old owner can write nothing", async () => {
    const one = await start();
    const other = await again(one);
    const { id } = await one.store.submit(SPEC);
    const dead = await claimed(one.store, 60);
    const saved = await reasonOf(one.store.saveCheckpoint(dead, [new Uint8Array([1, 2])]));
    await until(other, async () => (await other.get(id)).state.kind === "queued");
    const lease = await claimed(other);
    expect([lease.id, lease.job.attempt, lease.token > dead.token]).toEqual([id, 2, true]);
    if (saved === "none") expect(await other.loadCheckpoint(id)).toEqual(new Uint8Array([1, 2]));
    const writes = [
      one.store.renew(dead),
      one.store.writeProgress(dead, dead.job.progress),
      one.store.appendEvent(dead, { previewPng: new Uint8Array(1) }),
      one.store.saveCheckpoint(dead, [new Uint8Array(1)]),
      one.store.finish(dead, { kind: "completed", artefact: FACTS }),
      one.store.release(dead),
    ];
    expect(await Promise.all(writes.map(reasonOf))).toEqual(writes.map(() => "LEASE_LOST"));
    expect((await other.get(id)).state.kind).toBe("running");
  });
  test("an owner that is started again takes back its own leases at once, none of others, and its earlier life can write nothing", async () => {
    const one = await start();
    const other = await again(one);
    const [mine, flagged, theirs] = [
      await one.store.submit(SPEC),
      await one.store.submit(SPEC),
      await one.store.submit(SPEC),
    ];
    const before = await claimed(one.store);
    await claimed(one.store);
    await one.store.claimNext({ owner: "another", leaseMs: LONG_LEASE_MS });
    await one.store.saveCheckpoint(before, [new Uint8Array([5])]);
    await one.store.artefacts.createAttempt(before).then((attempt) => attempt.commit());
    await one.store.requestCancel(flagged.id);
    expect(await other.takeBack("test")).toBe(2);
    expect(await reasonOf(one.store.renew(before))).toBe("LEASE_LOST");
    expect((await other.get(flagged.id)).state.kind).toBe("cancelled");
    expect((await other.get(theirs.id)).state.kind).toBe("running");
    const after = await claimed(other);
    expect([after.id, after.job.attempt, after.token > before.token]).toEqual([mine.id, 2, true]);
    expect(await reasonOf(one.store.saveCheckpoint(before, [new Uint8Array(1)]))).toBe("LEASE_LOST");
    const ofBefore = expect.stringMatching(new RegExp(`^${before.token}-1\\.(large\\.)?checkpoint$`));
    expect(await other.artefacts.names(mine.id)).toEqual([ofBefore]);
    expect(await other.loadCheckpoint(mine.id)).toEqual(new Uint8Array([5]));
  });
  test("a job that loses its owner every time fails for good", async () => {
    const { store } = await start();
    const { id } = await store.submit(SPEC);
    for (let attempt = 0; attempt < limit("jobAttemptsMax"); attempt += 1) {
      await until(store, async () => (await store.get(id)).state.kind === "queued");
      await claimed(store, 30);
    }
    await until(store, async () => (await store.get(id)).state.kind === "failed");
    expect((await store.get(id)).state).toMatchObject({ error: { reason: "PEER_UNAVAILABLE" } });
  });
}

function endCases(start: Start): void {
  test("a job given back keeps its checkpoint and does not count as an attempt", async () => {
    const { store } = await start();
    const { id } = await store.submit(SPEC);
    const first = await claimed(store);
    await store.saveCheckpoint(first, [new Uint8Array([9])]);
    await store.release(first);
    const second = await claimed(store);
    expect([second.id, second.job.attempt]).toEqual([id, 1]);
    expect(await store.loadCheckpoint(id)).toEqual(new Uint8Array([9]));
  });
  test("a job that is cancelled while it runs is not run again: given back or its owner dead, it ends cancelled", async () => {
    const { store } = await start();
    const given = await store.submit(SPEC);
    const lease = await claimed(store);
    await store.requestCancel(given.id);
    await store.release(lease);
    expect((await store.get(given.id)).state.kind).toBe("cancelled");
    const dead = await store.submit(SPEC);
    await claimed(store, 60);
    await store.requestCancel(dead.id);
    await until(store, async () => (await store.get(dead.id)).state.kind === "cancelled");
    expect(await store.claimNext({ owner: "test", leaseMs: 60 })).toBeNull();
  });
  test("cancel ends a waiting job at once, flags a running one for its owner, and leaves an ended one", async () => {
    const { store } = await start();
    const waiting = await store.submit(SPEC);
    expect((await store.requestCancel(waiting.id)).state.kind).toBe("cancelled");
    const running = await store.submit(SPEC);
    const lease = await claimed(store);
    expect(await store.renew(lease)).toEqual({ cancelRequested: false });
    await store.requestCancel(running.id);
    expect(await store.writeProgress(lease, lease.job.progress)).toEqual({ cancelRequested: true });
    expect((await store.finish(lease, { kind: "cancelled" })).state.kind).toBe("cancelled");
    expect((await store.requestCancel(running.id)).state.kind).toBe("cancelled");
  });
}

function eventCases(start: Start, again: Again): void {
  test("watchers that follow while the job runs get every event once and in order, whatever they read at a time", async () => {
    const one = await start();
    const other = await again(one);
    const { id } = await one.store.submit(SPEC);
    const followed = [one.store, other].map((store, at) => follow(store, id, at + 1));
    const lease = await claimed(one.store);
    for (let step = 1; step <= 30; step += 1) {
      await one.store.writeProgress(lease, { stage: "denoise", step, stepCount: 30, percent: step });
      if (step === 15) await other.requestCancel(id);
    }
    await one.store.finish(lease, { kind: "cancelled" });
    for (const events of await Promise.all(followed)) {
      const steps = events.filter(({ progress }) => progress.stage === "denoise").map(({ progress }) => progress.step);
      expect([...new Set(steps)]).toEqual(Array.from({ length: 30 }, (_, at) => at + 1));
      expect(new Set(events.map(({ sequence }) => sequence)).size).toBe(events.length);
      expect(events).toEqual(await other.eventsAfter(id, 0));
      expect(await one.store.eventsAfter(id, events.at(-1)?.sequence ?? 0)).toEqual([]);
    }
    await one.store.delete(id);
    expect(await reasonOf(other.eventsAfter(id, 0))).toBe("VIDEO_NOT_FOUND");
  });
  test("a watcher in another process hears of every event in order and can resume at any cursor", async () => {
    const one = await start();
    const other = await again(one);
    const { id } = await one.store.submit(SPEC);
    const lease = await claimed(one.store);
    const progress = { stage: "denoise", step: 1, stepCount: 4, percent: 25 } as const;
    await one.store.writeProgress(lease, progress, [{ stage: "encode", seconds: 0.5 }]);
    await one.store.appendEvent(lease, { previewPng: new Uint8Array([1]) });
    await one.store.appendEvent(lease, { previewPng: new Uint8Array([2]) });
    await until(other, async () => (await other.eventsAfter(id, 0)).length === 5);
    const events = await other.eventsAfter(id, 0);
    expect(events.map((event) => event.state)).toEqual(["queued", "running", "running", "running", "running"]);
    expect(events.map((event) => event.previewPng?.[0])).toEqual([undefined, undefined, undefined, undefined, 2]);
    expect(events[2]?.progress).toEqual(progress);
    for (const [index, event] of events.entries())
      expect(await other.eventsAfter(id, event.sequence)).toEqual(events.slice(index + 1));
    expect(await other.eventsAfter(id, 0, 2)).toEqual(events.slice(0, 2));
    expect((await other.get(id)).stageTimings).toEqual([{ stage: "encode", seconds: 0.5 }]);
  });
  test("a wait ends with the caller's signal", async () => {
    const { store } = await start();
    const stop = new AbortController();
    const wait = store.waitForChange({ after: store.changeCount, signal: stop.signal });
    stop.abort(new Error("enough"));
    await expect(wait).rejects.toThrow("enough");
  });
}
