// Noise-level experts over real sockets: the right expert by timestep, two branches at two shards, and every way a shard can fail.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MoevieError } from "@moevie/contracts";
import { WireType, serveExchange, type DenoiserRequest, type ExchangeAnswer } from "@moevie/fabric";
import { Metrics, openTracing } from "@moevie/runtime";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { DenoiseInput } from "./denoise.ts";
import { Donors } from "./donors.ts";
import { ExpertStatistics } from "./expert-statistics.ts";
import { HedgePolicy } from "./hedge-policy.ts";
import { NoiseExperts } from "./noise-experts.ts";
import { ShardLinks } from "./shard-links.ts";

const GATE = { patch: [1, 2, 2], gate: { kind: "timestep", from: [875, 0] }, graphs: ["high", "low"] } as const;
const SHAPE = [2, 3, 4, 5];
const latent = Float32Array.from({ length: 120 }, (_, at) => Math.sin(at));
const context = { ctx: Float32Array.of(1, 2, 3, 4), tokens: 2, pooled: new Float32Array(0) };

let folder: string;
const cleanups: (() => Promise<void> | void)[] = [];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "moevie-noise-"));
  cleanups.push(() => rmSync(folder, { recursive: true }));
});
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).toReversed()) await cleanup();
});

interface Shard {
  readonly calls: { expert: number; branch: number; timestep: number; attempt: number }[];
  /** Runs before each answer. */
  before: () => Promise<void>;
}

/** A shard that adds its expert's number, the timestep and the context's sum to the latent. */
async function shard(name: string, experts: readonly number[]): Promise<Shard> {
  const state: Shard = { calls: [], before: () => Promise.resolve() };
  const denoiser = async ({ rows, unit, branch, attempt }: DenoiserRequest): Promise<ExchangeAnswer> => {
    const { expert, timestep } = unit;
    state.calls.push({ expert, branch, timestep, attempt });
    const sum = unit.context.reduce((total, value) => total + value, 0);
    const partial = rows.map((value) => value + expert + timestep + sum);
    await state.before();
    return { partial, queueUs: 0, computeUs: 0 };
  };
  const server = await serveExchange({
    listen: `unix:${join(folder, name)}`,
    holds: { digest: "model", epoch: 1, slots: experts.map((expert, slot) => ({ layer: 0, expert, slot })) },
    handlers: { denoiser },
  });
  cleanups.push(() => server.close(0));
  return state;
}

async function router(names: readonly string[]): Promise<{
  run: (changes?: Partial<DenoiseInput>) => Promise<Float32Array>;
  rows: () => number[][];
  page: () => Promise<string>;
}> {
  const metrics = new Metrics("router");
  const links = new ShardLinks({
    addresses: names.map((name) => ({ address: `unix:${join(folder, name)}`, numbered: false })),
    digest: "model",
    model: { layers: 1, experts: 2 },
    log: { info: () => undefined, warn: () => undefined },
    metrics,
  });
  cleanups.push(() => links.close());
  const hedges = new HedgePolicy({ share: 0.05, afterMsMin: 100 });
  const donors = new Donors({ links, afterMs: 60_000, log: { info: () => undefined, warn: () => undefined }, metrics });
  cleanups.push(() => donors.close());
  const tracing = await openTracing({ service: "router", endpoint: "", sampleRatio: 0 });
  const statistics = new ExpertStatistics(1, 2);
  const experts = new NoiseExperts(GATE, { links, wire: WireType.f32, hedges, donors, metrics, tracing }, statistics);
  const base = { graphs: "", shape: SHAPE, latent, timestep: 900, origin: 0, context, branch: 1 };
  const run = async (changes: Partial<DenoiseInput> = {}): Promise<Float32Array> => {
    const call = { ...base, signal: new AbortController().signal, endMs: performance.now() + 10_000 };
    return (await experts.run({ ...call, traceparent: undefined, ...changes })).velocity;
  };
  while (links.clients.some((client) => client?.holds() === undefined)) await links.change(AbortSignal.timeout(5000));
  return { run, rows: () => statistics.snapshot().rows, page: () => metrics.text() };
}

test("the expert is chosen by timestep, the bound belongs to the noisier one", async () => {
  const [high, low] = [await shard("a", [0]), await shard("b", [1])];
  const { run, rows } = await router(["a", "b"]);
  expect(await run({ timestep: 875 })).toEqual(latent.map((value) => value + 0 + 875 + 10));
  expect(await run({ timestep: 874 })).toEqual(latent.map((value) => value + 1 + 874 + 10));
  await run({ timestep: 0 });
  expect([high.calls.length, low.calls.length]).toEqual([1, 2]);
  expect(rows()).toEqual([[1, 2]]);
});

test("the two branches of a step are evaluated by two shards at once where two hold the expert", async () => {
  const shards = [await shard("a", [0]), await shard("b", [0])];
  const both = Promise.withResolvers<void>();
  let waiting = 0;
  for (const each of shards)
    each.before = () => {
      if (++waiting === 2) both.resolve();
      return both.promise;
    };
  const { run } = await router(["a", "b"]);
  await Promise.all([run({ branch: 1 }), run({ branch: 2 })]);
  expect(shards.map(({ calls }) => calls.map(({ branch }) => branch))).toEqual([[1], [2]]);
});

test("a shard that fails is not asked again while another holds the expert", async () => {
  const [bad, good] = [await shard("a", [0]), await shard("b", [0])];
  bad.before = () => Promise.reject(new MoevieError("DRAINING", "going away"));
  const { run } = await router(["a", "b"]);
  expect(await run()).toEqual(latent.map((value) => value + 900 + 10));
  expect([bad.calls.length, good.calls[0]?.attempt]).toEqual([1, 1]);
});

test("the only shard is asked again when what it failed with may pass, and not when it will not", async () => {
  const only = await shard("a", [0]);
  let fails = 2;
  only.before = () => (fails-- > 0 ? Promise.reject(new MoevieError("CREDITS_EXHAUSTED", "busy")) : Promise.resolve());
  const { run } = await router(["a"]);
  expect((await run()).length).toBe(latent.length);
  expect(only.calls.length).toBe(3);
  only.before = () => Promise.reject(new MoevieError("OUT_OF_MEMORY", "needs 9 bytes"));
  await expect(run()).rejects.toMatchObject({ reason: "OUT_OF_MEMORY" });
  expect(only.calls.length).toBe(4);
});

test("an expert nobody holds in time is EXPERT_MISSING, a cancelled call is CANCELLED", async () => {
  await shard("a", [0]);
  const { run } = await router(["a"]);
  await expect(run({ timestep: 1, endMs: performance.now() + 60 })).rejects.toMatchObject({ reason: "EXPERT_MISSING" });
  const abort = new AbortController();
  const cancelled = run({ timestep: 1, signal: abort.signal });
  abort.abort();
  await expect(cancelled).rejects.toMatchObject({ reason: "CANCELLED" });
});

test("a shard that is late with an evaluation has it done by another one as well, and is left alone for a while", async () => {
  const [late, other] = [await shard("a", [0]), await shard("b", [0])];
  const { run, page } = await router(["a", "b"]);
  const calm = await run();
  for (let times = 0; times < 20; times++) await run();
  const gate = Promise.withResolvers<void>();
  late.before = () => gate.promise;
  const asked = [late, other].map(({ calls }) => calls.length);
  for (let times = 0; times < 3; times++) expect(await run()).toEqual(calm);
  expect([late, other].map(({ calls }, at) => calls.length - (asked[at] ?? 0))).toEqual([1, 3]);
  expect(other.calls.at(-3)?.attempt).toBe(1);
  expect(await page()).toMatch(/^moevie_exchange_hedges_total\{.*shard="0",outcome="won".*\} [1-9]$/m);
  gate.resolve();
  await expect.poll(page).toMatch(/^moevie_exchange_late_answers_total\{.*shard="0".*\} [1-9]$/m);
  // Another size is another kind: nobody knows when it is late.
  await run({ shape: [2, 3, 2, 2], latent: new Float32Array(24) });
});
