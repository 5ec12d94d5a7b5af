// What every job store must do, as one suite: each implementation's test file calls it with a way to open its store.
import { rm } from "node:fs/promises";
import { afterEach, describe, expect, test } from "vitest";
import { limit, type Reason } from "@moevie/contracts";
import type { JobSpec, JobStore, Lease } from "./job-store.ts";

export interface OpenedStore {
  readonly store: JobStore;
  /** Opens the same records again, as another process would. */
  reopen(options?: { readonly queuedMax?: number }): Promise<JobStore>;
  readonly folder: string;
  /** Lays hands on a stored file as a broken disk would. */
  damage(id: string, name: string, how: Damage): Promise<void>;
}

/** Another byte, an end too early, or gone. */
export type Damage = "changed" | "cut" | "missing";
export const DAMAGES = ["changed", "cut", "missing"] as const;

export const SPEC: JobSpec = {
  prompt: "a dog",
  negativePrompt: "",
  seed: 7,
  width: 1280,
  height: 720,
  seconds: 2,
  fps: 24,
  quality: "standard",
  colorCorrection: true,
  steps: 4,
  guidance: 5,
  sampler: "unipc",
  model: "starter",
};

export const FACTS = {
  sizeBytes: 3,
  sha256: "00",
  codec: "h264",
  pixelFormat: "yuv420p",
  width: 1280,
  height: 720,
  fps: 24,
  frameCount: 48,
};
const LONG_LEASE_MS = 600_000;

export async function reasonOf(work: Promise<unknown>): Promise<Reason | "none"> {
  return await work.then(
    () => "none" as const,
    (thrown: { reason: Reason }) => thrown.reason,
  );
}

export function jobStoreContract(name: string, open: () => Promise<OpenedStore>): void {
  const opened: OpenedStore[] = [];
  const others: JobStore[] = [];
  const start = async (): Promise<OpenedStore> => {
    const one = await open();
    opened.push(one);
    return one;
  };
  const again = async (one: OpenedStore, options?: { queuedMax: number }): Promise<JobStore> => {
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
  describe(`${name}: leases`, () => leaseCases(start, again));
  describe(`${name}: ends`, () => endCases(start));
  describe(`${name}: events`, () => eventCases(start, again));
  describe(`${name}: clips`, () => clipCases(start, again));
  describe(`${name}: checkpoints`, () => checkpointCases(start, again));
}

type Start = () => Promise<OpenedStore>;
type Again = (one: OpenedStore, options?: { queuedMax: number }) => Promise<JobStore>;

/** Claims the next job, which must be there. */
export async function claimed(store: JobStore, leaseMs: number = LONG_LEASE_MS): Promise<Lease> {
  const lease = await store.claimNext({ owner: "test", leaseMs });
  if (lease === null) throw new Error("no job waits");
  return lease;
}

export async function until(store: JobStore, holds: () => Promise<boolean>): Promise<void> {
  const signal = AbortSignal.timeout(30_000);
  for (;;) {
    const after = store.changeCount;
    if (await holds()) return;
    await store.waitForChange({ after, signal });
  }
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
  test("pages list every job once, newest first, while jobs are added", async () => {
    const { store } = await start();
    const ids: string[] = [];
    for (let index = 0; index < 5; index += 1) ids.unshift((await store.submit(SPEC)).id);
    const first = await store.list({ pageSize: 2 });
    await store.submit(SPEC);
    const second = await store.list({ pageSize: 2, pageToken: first.nextPageToken });
    const third = await store.list({ pageSize: 2, pageToken: second.nextPageToken });
    expect([...first.jobs, ...second.jobs, ...third.jobs].map((job) => job.id)).toEqual(ids);
    expect(third.nextPageToken).toBe("");
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
    expect(await other.artefacts.names(mine.id)).toEqual([`${before.token}-1.checkpoint`]);
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

function clipCases(start: Start, again: Again): void {
  test("a finished job names its clip; files of other attempts and the checkpoint are gone", async () => {
    const { store } = await start();
    const { id } = await store.submit(SPEC);
    const first = await claimed(store);
    const late = await store.artefacts.createAttempt(first);
    await late.write(new Uint8Array([0]));
    await store.release(first);
    const second = await claimed(store);
    await store.saveCheckpoint(second, [new Uint8Array(8)]);
    const attempt = await store.artefacts.createAttempt(second);
    await attempt.write(new Uint8Array([1, 2]));
    await attempt.write(new Uint8Array([3]));
    await late.writeCompanion("thumbnail.jpg", new Uint8Array([8]));
    await attempt.writeCompanion("thumbnail.jpg", new Uint8Array([9]));
    expect(await attempt.commit()).toBe(3);
    const done = await store.finish(second, { kind: "completed", artefact: FACTS });
    await late.commit();
    expect(done.state).toMatchObject({ kind: "completed", token: second.token, artefact: FACTS });
    expect(done.progress.percent).toBe(100);
    const clip = await store.artefacts.open({ id, token: second.token });
    expect(Buffer.concat(await clip.read().toArray())).toEqual(Buffer.from([1, 2, 3]));
    expect(Buffer.concat(await clip.read({ start: 1, end: 1 }).toArray())).toEqual(Buffer.from([2]));
    expect(await reasonOf(store.artefacts.open(first))).toBe("VIDEO_NOT_READY");
    const thumbnail = await store.artefacts.open({ id, token: second.token }, "thumbnail.jpg");
    expect(Buffer.concat(await thumbnail.read().toArray())).toEqual(Buffer.from([9]));
    expect(await reasonOf(store.artefacts.open({ id, token: second.token }, "sprites.jpg"))).toBe("VIDEO_NOT_READY");
    expect(await store.loadCheckpoint(id)).toBeNull();
  });
  test("however a job leaves a lease, the clip that lease was writing is gone; the file of a live lease stays", async () => {
    const one = await start();
    const { store } = one;
    const leave: Record<string, (lease: Lease) => Promise<unknown>> = {
      failed: (lease) => store.finish(lease, { kind: "failed", error: { reason: "INTERNAL", message: "It broke." } }),
      cancelled: (lease) => store.finish(lease, { kind: "cancelled" }),
      queued: (lease) => store.release(lease),
      deleted: (lease) => store.delete(lease.id),
    };
    const live = await store.submit(SPEC);
    const liveLease = await claimed(store);
    const writing = await store.artefacts.createAttempt(liveLease);
    for (const end of Object.values(leave)) {
      const { id } = await store.submit(SPEC);
      const lease = await claimed(store);
      const attempt = await store.artefacts.createAttempt(lease);
      await end(lease);
      expect(await store.artefacts.names(id)).toEqual([]);
      await attempt.discard();
      await store.delete(id).catch(() => undefined);
    }
    await writing.commit();
    await again(one);
    expect(await store.artefacts.names(live.id)).toEqual([`${liveLease.token}.mp4`]);
  });
  test("a lease that ran out leaves no clip, whether its job waits again, was cancelled or failed for good", async () => {
    const { store } = await start();
    const { id } = await store.submit(SPEC);
    const gone = (kind: string): Promise<void> =>
      until(
        store,
        async () => (await store.get(id)).state.kind === kind && (await store.artefacts.names(id)).length === 0,
      );
    await (await store.artefacts.createAttempt(await claimed(store, 60))).commit();
    await gone("queued");
    await (await store.artefacts.createAttempt(await claimed(store, 60))).commit();
    await store.requestCancel(id);
    await gone("cancelled");
    expect(await store.artefacts.ids()).toEqual([]);
  });
}

function checkpointCases(start: Start, again: Again): void {
  test("a checkpoint larger than a message is saved while other calls are answered, stands beside the one before and goes with the job", async () => {
    const one = await start();
    const { store } = one;
    const { id } = await store.submit(SPEC);
    const lease = await claimed(store);
    const parts = [new Uint8Array(5).fill(1), new Uint8Array(96 * 2 ** 20).fill(7)];
    await store.saveCheckpoint(lease, [new Uint8Array(1)]);
    const order: string[] = [];
    await Promise.all([
      store.saveCheckpoint(lease, parts).then(() => order.push("checkpoint")),
      store.renew(lease).then(() => order.push("renewal")),
    ]);
    expect(order).toEqual(["renewal", "checkpoint"]);
    const other = await again(one);
    expect(await store.artefacts.names(id)).toHaveLength(2);
    const read = Buffer.from((await other.loadCheckpoint(id)) ?? []);
    expect(read.equals(Buffer.concat(parts))).toBe(true);
    await store.finish(lease, { kind: "cancelled" });
    expect(await store.artefacts.ids()).toEqual([]);
    expect(await reasonOf(store.saveCheckpoint(lease, parts))).toBe("LEASE_LOST");
    expect(await store.artefacts.names(id)).toEqual([]);
  });
  test("two checkpoints are kept: a newest that is damaged, cut or missing gives way to the one before, and is told when both are", async () => {
    const { store, damage } = await start();
    const { id } = await store.submit(SPEC);
    const lease = await claimed(store);
    const newest = async (): Promise<string> => (await namesByAge(store, id)).at(-1) ?? "";
    for (const how of DAMAGES) {
      await store.saveCheckpoint(lease, [Buffer.from("0000")]);
      await store.saveCheckpoint(lease, [Buffer.from("12"), Buffer.from("34")]);
      expect(await store.artefacts.names(id)).toHaveLength(2);
      expect(Buffer.from((await store.loadCheckpoint(id)) ?? []).toString()).toBe("1234");
      await damage(id, await newest(), how);
      expect(Buffer.from((await store.loadCheckpoint(id)) ?? []).toString()).toBe("0000");
      for (const name of await store.artefacts.names(id)) await damage(id, name, "missing");
      expect(await reasonOf(store.loadCheckpoint(id))).toBe("STORE_CORRUPT");
    }
  });
}

async function namesByAge(store: JobStore, id: string): Promise<readonly string[]> {
  const numberOf = (name: string): number => Number(/-(\d+)\./.exec(name)?.[1]);
  return [...(await store.artefacts.names(id))].sort((one, other) => numberOf(one) - numberOf(other));
}
