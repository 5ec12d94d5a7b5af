// When running jobs write checkpoints, by a clock that the test moves; and that a service which drains loses no step.
import { afterEach, beforeEach, expect, test } from "vitest";
import { systemClock } from "@moevie/runtime";
import type { JobStore } from "@moevie/job-store";
import { decodeCheckpoint } from "./checkpoint.ts";
import { clipBytes, ended, expectedClip, FakeCluster, SPEC, until } from "./cluster.fixture.ts";

let cluster: FakeCluster;
beforeEach(() => {
  cluster = new FakeCluster();
});
afterEach(() => cluster.close());

test("a checkpoint is written once the steps since the last one pay for it, and metrics say what it took", async () => {
  await cluster.serve();
  let nowMs = 0;
  cluster.hooks.denoise = () => {
    nowMs += 1100;
    return Promise.resolve();
  };
  const store = await cluster.openStore();
  const steps: number[] = [];
  const saveCheckpoint: JobStore["saveCheckpoint"] = (_lease, parts) => {
    nowMs += 45;
    steps.push(decodeCheckpoint(new Uint8Array(Buffer.concat(parts)))?.step ?? 0);
    return Promise.resolve({ cancelRequested: false });
  };
  const slow = new Proxy(store, {
    get(target, name) {
      const value: unknown = name === "saveCheckpoint" ? saveCheckpoint : Reflect.get(target, name, target);
      return typeof value === "function" ? (value.bind(target) as unknown) : value;
    },
  });
  const clock = { ...systemClock, monotonicMs: () => nowMs };
  await cluster.schedule(slow, { checkpointSteps: 1, checkpointShareMax: 0.01 }, clock);
  // Of one size each: one branch, and a sampler that remembers nothing.
  const spec = { ...SPEC, steps: 30, guidance: 1, sampler: "euler" };
  const job = await until(store, (await store.submit(spec)).id, ended);
  expect(await clipBytes(store, job)).toEqual(expectedClip(spec));
  // The first by what is assumed of a store nobody knows, the others by what it took.
  expect(steps).toEqual([1, 5, 10, 15, 20, 25, 30]);
  const text = await cluster.metrics.text();
  expect(text).toMatch(/^moevie_job_checkpoints_total\{.*\} 7$/m);
  expect(Number(/^moevie_job_checkpoint_seconds_total\{.*\} (\S+)$/m.exec(text)?.[1])).toBeCloseTo(7 * 0.045, 6);
  expect(Number(/^moevie_job_checkpoint_bytes_total\{.*\} (\d+)$/m.exec(text)?.[1])).toBeGreaterThan(7 * 100);
});

test("a service that drains while the clip is made leaves the last latent: no step is made again", async () => {
  await cluster.serve();
  const reached = Promise.withResolvers<void>();
  cluster.hooks.decode = (call) => {
    if (call > 1) return Promise.resolve();
    reached.resolve();
    return new Promise(() => undefined);
  };
  const store = await cluster.openStore();
  const first = await cluster.schedule(store, { checkpointSteps: 100 });
  const { id } = await store.submit(SPEC);
  await reached.promise;
  expect(await store.loadCheckpoint(id)).toBeNull();
  await first.stop();
  const before = cluster.denoiseHeads.length;
  await cluster.schedule(store, { owner: "b" });
  const job = await until(store, id, ended);
  expect(cluster.denoiseHeads.length).toBe(before);
  expect(await clipBytes(store, job)).toEqual(expectedClip(SPEC));
});
