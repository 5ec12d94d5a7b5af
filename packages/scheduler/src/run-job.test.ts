// Jobs whose store is not as usual: it says that the lease is lost, is busy, or gives back what is no checkpoint of theirs.
import { truncate } from "node:fs/promises";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { MoevieError } from "@moevie/contracts";
import type { JobStore } from "@moevie/job-store";
import { encodeCheckpoint } from "./checkpoint.ts";
import { clipBytes, ended, expectedClip, FakeCluster, SPEC, until } from "./cluster.fixture.ts";

let cluster: FakeCluster;
beforeEach(() => {
  cluster = new FakeCluster();
});
afterEach(() => cluster.close());

/** `store` with other answers to some calls. */
function storeWith(store: JobStore, changes: Partial<JobStore>): JobStore {
  return new Proxy(store, {
    get(target, name) {
      const value: unknown = Reflect.get(changes, name) ?? Reflect.get(target, name, target);
      return typeof value === "function" ? (value.bind(target) as unknown) : value;
    },
  });
}

/** How many checkpoints the lease had saved, from a file's name. */
function countOf(name: string): number {
  return Number(/-(\d+)\./.exec(name)?.[1]);
}

describe("the job store", () => {
  it("that says the lease is lost stops the job at once, in the middle of a step, and nothing more is written", async () => {
    await cluster.serve();
    const reached = Promise.withResolvers<void>();
    cluster.hooks.denoise = (_head, call) => {
      if (call < 5) return Promise.resolve();
      if (call === 6) reached.resolve();
      // Never answered: only giving up the call ends the step.
      return new Promise(() => undefined);
    };
    const store = await cluster.openStore();
    const lost = new MoevieError("LEASE_LOST", "Another scheduler owns the job now.");
    let endsWritten = 0;
    let lostId = "";
    const scheduler = await cluster.schedule(
      storeWith(store, {
        renew: (lease) => (lease.id === lostId ? Promise.reject(lost) : store.renew(lease)),
        finish: (lease, outcome) => {
          endsWritten++;
          return store.finish(lease, outcome);
        },
        release: (lease) => {
          endsWritten++;
          return store.release(lease);
        },
      }),
      { jobsRunningMax: 1, leaseRenewMs: 10 },
    );
    const { id } = await store.submit(SPEC);
    await reached.promise;
    lostId = id;
    const next = await store.submit({ ...SPEC, guidance: 1, steps: 1 });
    cluster.hooks.denoise = () => Promise.resolve();
    // There is room for one job: the next runs only when the lost one has been given up.
    await until(store, next.id, ended);
    expect(endsWritten).toBe(1);
    expect(await store.get(id)).toMatchObject({ state: { kind: "running" }, progress: { step: 2 } });
    await scheduler.stop();
    expect(endsWritten).toBe(1);
  });

  it("that is busy when the checkpoint is read is asked again", async () => {
    await cluster.serve();
    const store = await cluster.openStore();
    let reads = 0;
    await cluster.schedule(
      storeWith(store, {
        loadCheckpoint: (id) =>
          ++reads < 3
            ? Promise.reject(new MoevieError("PEER_UNAVAILABLE", "The job store is busy; try again."))
            : store.loadCheckpoint(id),
      }),
    );
    const job = await until(store, (await store.submit(SPEC)).id, ended);
    expect(await clipBytes(store, job)).toEqual(expectedClip(SPEC));
    expect(reads).toBe(3);
  });

  it("that is busy when the end is written is written to again", async () => {
    await cluster.serve();
    const store = await cluster.openStore();
    let writes = 0;
    await cluster.schedule(
      storeWith(store, {
        finish: (lease, outcome) =>
          ++writes < 3
            ? Promise.reject(new MoevieError("PEER_UNAVAILABLE", "The job store is busy; try again."))
            : store.finish(lease, outcome),
      }),
    );
    const job = await until(store, (await store.submit(SPEC)).id, ended);
    expect(await clipBytes(store, job)).toEqual(expectedClip(SPEC));
    expect(writes).toBe(3);
  });

  it("that keeps a checkpoint of another build makes the job begin at the noise, with the same clip", async () => {
    await cluster.serve();
    const store = await cluster.openStore();
    const parts = encodeCheckpoint({
      fingerprint: "another",
      step: 4,
      latent: new Float32Array(72).fill(9),
      sampler: { name: "unipc", warmUp: 0, order: 0, estimates: [], lastLatent: undefined },
    });
    const other = new Uint8Array(Buffer.concat(parts));
    await cluster.schedule(storeWith(store, { loadCheckpoint: () => Promise.resolve(other) }));
    const job = await until(store, (await store.submit(SPEC)).id, ended);
    expect(await clipBytes(store, job)).toEqual(expectedClip(SPEC));
    expect(cluster.denoiseHeads.length).toBe(16);
  });

  it.each([
    ["the newest checkpoint", "goes on from the one before", 1, 12],
    ["both checkpoints", "begins at the noise", 2, 16],
  ])("that finds %s damaged %s, with the same clip", async (_what, _how, damaged, calls) => {
    await cluster.serve();
    const reached = Promise.withResolvers<void>();
    cluster.hooks.denoise = (_head, call) => {
      if (call < 7) return Promise.resolve();
      reached.resolve();
      return call > 8 ? Promise.resolve() : new Promise(() => undefined);
    };
    const store = await cluster.openStore();
    const first = await cluster.schedule(store);
    const { id } = await store.submit(SPEC);
    await reached.promise;
    await first.stop();
    const names = [...(await store.artefacts.names(id))].sort((one, other) => countOf(other) - countOf(one));
    for (const name of names.slice(0, damaged)) await truncate(store.artefacts.path(id, name), 100);
    const before = cluster.denoiseHeads.length;
    await cluster.schedule(store);
    const job = await until(store, id, ended);
    expect(await clipBytes(store, job)).toEqual(expectedClip(SPEC));
    expect(cluster.denoiseHeads.length - before).toBe(calls);
  });

  it("that has no room for a checkpoint fails that job with DISK_FULL, and no other", async () => {
    await cluster.serve();
    const store = await cluster.openStore();
    const { id } = await store.submit(SPEC);
    const full = new MoevieError("DISK_FULL", "There is no room left on the disk for the job's files.");
    await cluster.schedule(
      storeWith(store, {
        saveCheckpoint: (lease, parts) => (lease.id === id ? Promise.reject(full) : store.saveCheckpoint(lease, parts)),
      }),
    );
    const other = await store.submit(SPEC);
    expect((await until(store, id, ended)).state).toMatchObject({
      kind: "failed",
      error: { reason: "DISK_FULL", message: full.message },
    });
    expect(await clipBytes(store, await until(store, other.id, ended))).toEqual(expectedClip(SPEC));
  });
});
