// Whole jobs through the scheduler over real sockets and a real store: the usual way, and every way it is disturbed.
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { MoevieError } from "@moevie/contracts";
import { clipBytes, ended, expectedClip, FakeCluster, SPEC, until } from "./cluster.fixture.ts";

let cluster: FakeCluster;
beforeEach(() => {
  cluster = new FakeCluster();
});
afterEach(() => cluster.close());

describe("a job", () => {
  it("gives the clip that its arithmetic alone gives, with events, previews and timings", async () => {
    await cluster.serve();
    const store = await cluster.openStore();
    const scheduler = await cluster.schedule(store);
    const { id } = await store.submit(SPEC, { bundleDigest: "d1" });
    const job = await until(store, id, ended);
    expect(await clipBytes(store, job)).toEqual(expectedClip(SPEC));
    expect(job.state).toMatchObject({ kind: "completed", artefact: { codec: "h264", frameCount: 24, fps: 24 } });
    expect(job.stageTimings.map(({ stage }) => stage)).toEqual(["queue", "encode", "denoise", "decode"]);
    const events = await store.eventsAfter(id, 0);
    const steps = events.filter((event) => event.progress.stage === "denoise");
    // A preview is an event of its own, at the step before it.
    expect([...new Set(steps.map((event) => event.progress.step))]).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
    expect(steps.every((event) => (event.progress.remainingSeconds ?? -1) >= 0)).toBe(true);
    const percents = events.map((event) => event.progress.percent);
    expect(percents).toEqual([...percents].sort((a, b) => a - b));
    const preview = events.findLast((event) => event.previewPng !== undefined)?.previewPng;
    expect(Buffer.from(preview ?? []).toString("latin1", 1, 4)).toBe("PNG");
    expect(await store.loadCheckpoint(id)).toBeNull();
    await scheduler.stop();
    const text = await cluster.metrics.text();
    expect(text).toMatch(/moevie_denoise_steps_total\{service="test"\} 8/);
    expect(text).toMatch(
      /moevie_jobs_finished_total\{outcome="completed",reason="",service="test"\} 1|moevie_jobs_finished_total\{service="test",outcome="completed",reason=""\} 1/,
    );
  });

  it("runs both branches of a step at once, and one alone when guidance is 1", async () => {
    await cluster.serve();
    const both = Promise.withResolvers<void>();
    cluster.hooks.denoise = (_head, call) => {
      // The first branch is answered only when the second has arrived.
      if (call === 2) both.resolve();
      return call <= 2 ? both.promise : Promise.resolve();
    };
    const store = await cluster.openStore();
    await cluster.schedule(store);
    const guided = await store.submit(SPEC);
    await until(store, guided.id, ended);
    expect(new Set(cluster.denoiseHeads.map((head) => head.branch))).toEqual(
      new Set(["BRANCH_CONDITIONAL", "BRANCH_UNCONDITIONAL"]),
    );
    expect(cluster.denoiseHeads.length).toBe(16);
    cluster.denoiseHeads.length = 0;
    cluster.hooks.denoise = () => Promise.resolve();
    const plain = { ...SPEC, guidance: 1, sampler: "euler" };
    const single = await until(store, (await store.submit(plain)).id, ended);
    expect(cluster.denoiseHeads.map((head) => head.branch)).toEqual(
      Array.from({ length: 8 }, () => "BRANCH_CONDITIONAL"),
    );
    expect(await clipBytes(store, single)).toEqual(expectedClip(plain));
  });

  it("of draft quality asks for that variant, and its guidance of 1 for one branch a step", async () => {
    await cluster.serve();
    const store = await cluster.openStore();
    await cluster.schedule(store);
    const draft = { ...SPEC, quality: "draft" as const, guidance: 1 };
    const job = await until(store, (await store.submit(draft)).id, ended);
    const asked = cluster.denoiseHeads.map(({ branch, variant }) => [branch, variant]);
    expect(asked).toEqual(Array.from({ length: 8 }, () => ["BRANCH_CONDITIONAL", "draft"]));
    // The router keeps contexts by variant, so it must be told there, too.
    expect(cluster.contextVariants).toEqual(["draft"]);
    expect(await clipBytes(store, job)).toEqual(expectedClip(draft));
  });

  it("longer than the model's is evaluated in windows, several at once, and blended", async () => {
    await cluster.serve();
    const long = { ...SPEC, seconds: 4 };
    const four = Promise.withResolvers<void>();
    cluster.hooks.denoise = (_head, call) => {
      // Two windows, both branches: all are answered only when the last has arrived.
      if (call === 4) four.resolve();
      return call <= 4 ? four.promise : Promise.resolve();
    };
    const store = await cluster.openStore();
    await cluster.schedule(store);
    const job = await until(store, (await store.submit(long)).id, ended);
    expect(await clipBytes(store, job)).toEqual(expectedClip(long));
    expect(new Set(cluster.denoiseHeads.map(({ origin }) => origin))).toEqual(new Set([0, 1, 2, 3]));
  });

  it("runs beside another, and a third waits for room", async () => {
    await cluster.serve();
    const timesteps = new Set<string>();
    const two = Promise.withResolvers<void>();
    cluster.hooks.denoise = (head) => {
      timesteps.add(head.contextHash);
      // Two jobs of different prompts, unguided: both must be in flight before either goes on.
      if (timesteps.size === 2) two.resolve();
      return two.promise;
    };
    const store = await cluster.openStore();
    const jobs = [];
    for (const prompt of ["one", "two", "three"]) jobs.push(await store.submit({ ...SPEC, prompt, guidance: 1 }));
    await cluster.schedule(store);
    await two.promise;
    expect(timesteps.size).toBe(2);
    for (const { id } of jobs) expect((await until(store, id, ended)).state.kind).toBe("completed");
  });
});

describe("a job that is stopped", () => {
  it("ends as cancelled at the next step and computes no more", async () => {
    await cluster.serve();
    const reached = Promise.withResolvers<void>();
    const gate = Promise.withResolvers<void>();
    cluster.hooks.denoise = async (_head, call) => {
      if (call === 5) {
        reached.resolve();
        await gate.promise;
      }
    };
    const store = await cluster.openStore();
    await cluster.schedule(store, { jobsRunningMax: 1 });
    const { id } = await store.submit(SPEC);
    await reached.promise;
    await store.requestCancel(id);
    const job = await until(store, id, ended);
    gate.resolve();
    expect(job.state.kind).toBe("cancelled");
    const next = await store.submit({ ...SPEC, guidance: 1, steps: 1 });
    const seen = cluster.denoiseHeads.length;
    await until(store, next.id, ended);
    expect(cluster.denoiseHeads.length).toBe(seen + 1);
  });

  it("leaves no clip when it is cancelled while its clip is made", async () => {
    await cluster.serve();
    const reached = Promise.withResolvers<void>();
    cluster.hooks.decode = (_call, message) => {
      if (message < 2) return Promise.resolve();
      reached.resolve();
      // Half a clip is written, and no more comes.
      return new Promise(() => undefined);
    };
    const store = await cluster.openStore();
    const scheduler = await cluster.schedule(store);
    const { id } = await store.submit(SPEC);
    await reached.promise;
    await store.requestCancel(id);
    expect((await until(store, id, ended)).state.kind).toBe("cancelled");
    await scheduler.stop();
    expect(await store.artefacts.ids()).toEqual([]);
  });

  it("goes on at its last step with the same clip when the service drains", async () => {
    await cluster.serve();
    const reached = Promise.withResolvers<void>();
    const gate = Promise.withResolvers<void>();
    cluster.hooks.denoise = async (_head, call) => {
      if (call === 7) {
        reached.resolve();
        await gate.promise;
      }
    };
    const store = await cluster.openStore();
    const first = await cluster.schedule(store, { checkpointSteps: 100 });
    const { id } = await store.submit(SPEC);
    await reached.promise;
    await first.stop();
    expect(await store.get(id)).toMatchObject({ attempt: 0, state: { kind: "queued" } });
    gate.resolve();
    const before = cluster.denoiseHeads.length;
    await cluster.schedule(store, { owner: "b" });
    const job = await until(store, id, ended);
    expect(cluster.denoiseHeads.length - before).toBe(2 * (8 - 3));
    expect(await clipBytes(store, job)).toEqual(expectedClip(SPEC));
  });

  it("is taken over at its last checkpoint with the same clip when its scheduler falls silent, which then cannot write", async () => {
    await cluster.serve();
    const reached = Promise.withResolvers<void>();
    const gate = Promise.withResolvers<void>();
    cluster.hooks.denoise = async (_head, call) => {
      if (call === 11 || call === 12) {
        if (call === 12) reached.resolve();
        await gate.promise;
      }
    };
    const silent = { leaseMs: 300, leaseRenewMs: 3_600_000 };
    const storeA = await cluster.openStore();
    const a = await cluster.schedule(storeA, silent);
    const { id } = await storeA.submit(SPEC);
    await reached.promise;
    const storeB = await cluster.openStore();
    await cluster.schedule(storeB, { owner: "b", leaseMs: 300 });
    const job = await until(storeB, id, ended);
    // A stands in step 6 with a checkpoint of step 4: four steps remain, two branches each.
    expect(cluster.denoiseHeads.length).toBe(12 + 2 * 4);
    expect(job.attempt).toBe(2);
    expect(await clipBytes(storeB, job)).toEqual(expectedClip(SPEC));
    gate.resolve();
    await a.stop();
    expect(await storeB.get(id)).toEqual(job);
    expect(await clipBytes(storeB, job)).toEqual(expectedClip(SPEC));
  });

  it("goes on at once, long before its lease would run out, when its scheduler is started again under its name", async () => {
    await cluster.serve();
    const reached = Promise.withResolvers<void>();
    cluster.hooks.denoise = (_head, call) => {
      if (call !== 11 && call !== 12) return Promise.resolve();
      if (call === 12) reached.resolve();
      return new Promise(() => undefined);
    };
    const storeA = await cluster.openStore();
    const stopped = await cluster.schedule(storeA, { leaseMs: 3_600_000, leaseRenewMs: 3_600_000 });
    const { id } = await storeA.submit(SPEC);
    await reached.promise;
    const storeB = await cluster.openStore();
    await cluster.schedule(storeB, { leaseMs: 3_600_000 });
    const job = await until(storeB, id, ended);
    expect([job.attempt, cluster.denoiseHeads.length]).toEqual([2, 12 + 2 * 4]);
    await stopped.stop();
    expect(await clipBytes(storeB, await storeB.get(id))).toEqual(expectedClip(SPEC));
  });
});

describe("a peer that fails", () => {
  it("is called again while it is away, and the clip is the same", async () => {
    await cluster.serve(["text", "decoder"]);
    const store = await cluster.openStore();
    await cluster.schedule(store);
    const { id } = await store.submit(SPEC);
    await until(store, id, (job) => job.progress.stage === "encode");
    cluster.hooks.denoise = (_head, call) =>
      call % 3 === 0 ? Promise.reject(new MoevieError("EXPERT_MISSING", "No shard.")) : Promise.resolve();
    await cluster.serve(["router"]);
    expect(await clipBytes(store, await until(store, id, ended))).toEqual(expectedClip(SPEC));
    expect(await cluster.metrics.text()).toMatch(/moevie_peer_retries_total\{.*EXPERT_MISSING.*\} [1-9]/);
  });

  it("is asked on one stream a branch, on a new one where it ended that between two evaluations", async () => {
    await cluster.serve();
    const store = await cluster.openStore();
    await cluster.schedule(store);
    await until(store, (await store.submit(SPEC)).id, ended);
    expect(cluster.denoiseStreams).toBe(2);
    cluster.denoiseStreams = 0;
    cluster.denoiseHeads.length = 0;
    cluster.hooks.streamGoesOn = (call) => call !== 5;
    const job = await until(store, (await store.submit(SPEC)).id, ended);
    expect(await clipBytes(store, job)).toEqual(expectedClip(SPEC));
    expect(cluster.denoiseStreams).toBe(3);
    expect(cluster.denoiseHeads.length).toBe(16);
  });

  it("of several of its kind has its share of a long clip's windows, and leaves the rest its work when it dies", async () => {
    await cluster.serve(["text", "decoder"]);
    const { close } = await cluster.serveRouters(3);
    // 13 latent frames: more windows than streams.
    const long = { ...SPEC, seconds: 6 };
    const store = await cluster.openStore();
    await cluster.schedule(store);
    // A first job finds the connections.
    await until(store, (await store.submit(SPEC)).id, ended);
    cluster.denoiseHeads.length = 0;
    for (const router of cluster.routers) router.evaluations = 0;
    const first = await until(store, (await store.submit(long)).id, ended);
    expect(await clipBytes(store, first)).toEqual(expectedClip(long));
    const shares = cluster.routers.map(({ evaluations }) => evaluations / cluster.denoiseHeads.length);
    expect(Math.min(...shares)).toBeGreaterThan(0.2);

    const gone = Promise.withResolvers<void>();
    cluster.denoiseHeads.length = 0;
    cluster.hooks.denoise = async (_head, call) => {
      if (call !== 40) return;
      void close(1).then(gone.resolve);
      await gone.promise;
    };
    const second = await until(store, (await store.submit({ ...long, seed: 8 })).id, ended);
    expect(await clipBytes(store, second)).toEqual(expectedClip({ ...long, seed: 8 }));
    expect(second.attempt).toBe(1);
  });

  it("gets the context again when it forgot it", async () => {
    await cluster.serve();
    cluster.hooks.denoise = (_head, call) => {
      if (call === 6) cluster.routers[0]?.contexts.clear();
      return Promise.resolve();
    };
    const store = await cluster.openStore();
    await cluster.schedule(store);
    const job = await until(store, (await store.submit(SPEC)).id, ended);
    expect(await clipBytes(store, job)).toEqual(expectedClip(SPEC));
    expect(cluster.contextVariants.length).toBe(4);
    expect(cluster.encodeCalls).toBe(1);
  });

  it("ends the job with its reason and public text when calling again cannot help", async () => {
    await cluster.serve();
    cluster.hooks.denoise = () =>
      Promise.reject(new MoevieError("OUT_OF_MEMORY", "The step needs 9 bytes.", { detail: "secret" }));
    const store = await cluster.openStore();
    await cluster.schedule(store);
    const job = await until(store, (await store.submit(SPEC)).id, ended);
    expect(job.state).toMatchObject({
      kind: "failed",
      error: { reason: "OUT_OF_MEMORY", message: "The step needs 9 bytes." },
    });
  });

  it("fails the job when it stays away beyond the policy", async () => {
    await cluster.serve(["text"]);
    const store = await cluster.openStore();
    await cluster.schedule(store, { retry: { firstPauseMs: 1, pauseMsMax: 2, totalMsMax: 10 } });
    const job = await until(store, (await store.submit(SPEC)).id, ended);
    expect(job.state).toMatchObject({ kind: "failed", error: { reason: "PEER_UNAVAILABLE" } });
  });

  it("decodes again from the latent when the decoder breaks off midway", async () => {
    await cluster.serve();
    cluster.hooks.decode = (call, message) =>
      call === 1 && message === 2 ? Promise.reject(new MoevieError("DRAINING", "Going.")) : Promise.resolve();
    const store = await cluster.openStore();
    await cluster.schedule(store);
    const job = await until(store, (await store.submit(SPEC)).id, ended);
    expect(await clipBytes(store, job)).toEqual(expectedClip(SPEC));
    expect(cluster.denoiseHeads.length).toBe(16);
  });

  it("publishes nothing when the clip's hash is not what the decoder says", async () => {
    await cluster.serve();
    cluster.hooks.clipSha256 = () => "0".repeat(64);
    const store = await cluster.openStore();
    const scheduler = await cluster.schedule(store);
    const job = await until(store, (await store.submit(SPEC)).id, ended);
    expect(job.state).toMatchObject({ kind: "failed", error: { reason: "INTERNAL" } });
    // The record comes first, the file goes after it.
    await scheduler.stop();
    expect(await store.artefacts.ids()).toEqual([]);
  });

  it("refuses jobs of another bundle and of a sampler it has not", async () => {
    await cluster.serve();
    const store = await cluster.openStore();
    await cluster.schedule(store);
    const other = await until(store, (await store.submit(SPEC, { bundleDigest: "d0" })).id, ended);
    expect(other.state).toMatchObject({ error: { reason: "BUNDLE_MISMATCH" } });
    const strange = await until(store, (await store.submit({ ...SPEC, sampler: "ddim" })).id, ended);
    expect(strange.state).toMatchObject({ error: { reason: "UNSUPPORTED" } });
  });
});
