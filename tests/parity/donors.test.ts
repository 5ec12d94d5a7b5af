// A shard that held the only copies dies and stays away: another one loads them, and the step that waited goes on with the same result,
// without a controller and with one. Real processes.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openBundle } from "@moevie/bundle";
import type { Bundle } from "@moevie/bundle";
import { importModel, importStarter } from "@moevie/importer";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { DenoiseCluster } from "./denoise-cluster.ts";
import type { Dense } from "./safetensors-file.ts";
import { seeded, writeTinyModel } from "./tiny.ts";

const CALL = { timeoutMs: 10_000 };
const LAYERS = 3;

const folder = mkdtempSync(join(tmpdir(), "moevie-donors-"));
const bundleFolder = join(folder, "bundle");
let bundle: Bundle;
let latent: Dense;
let rows: Dense;

beforeAll(async () => {
  const sizes = writeTinyModel(join(folder, "source"), { layers: LAYERS, experts: 8, frames: 9 });
  await importStarter(join(folder, "source"), bundleFolder);
  bundle = await openBundle(bundleFolder);
  const random = seeded(9);
  const dense = (shape: number[]): Dense => ({
    shape,
    data: Float32Array.from({ length: shape.reduce((a, b) => a * b) }, () => 2 * random()),
  });
  const { channels, spatialStride } = bundle.manifest.latent;
  latent = dense([channels, 3, bundle.manifest.height / spatialStride, bundle.manifest.width / spatialStride]);
  rows = dense([sizes.maxTokens, sizes.textWidth]);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** The epoch of a shard and how many experts it holds. */
async function heldBy(cluster: DenoiseCluster, shard: number): Promise<{ epoch: number; experts: number }> {
  const peer = cluster.placementOf(shard);
  try {
    const { epoch, experts } = await peer.unary("GetHoldings", {}, CALL);
    return { epoch, experts: experts.length };
  } finally {
    peer.close();
  }
}

test("without a controller: two routers find the same donor, it loads each layer once, and the shard that comes back has its own", async () => {
  const cluster = await DenoiseCluster.start({ bundleFolder, shards: 2, routers: 2 });
  try {
    const evaluate = async (router: number): Promise<Float32Array> =>
      (await cluster.denoise(bundle, latent, 500, rows, 0, "", router)).velocity;
    const calm = await evaluate(0);
    const running = Promise.all([0, 1].map(evaluate));
    cluster.killShard(1);
    const startMs = performance.now();
    for (const velocity of await running) expect(velocity).toEqual(calm);
    console.log(`${Math.round(performance.now() - startMs)} ms from kill -9 to the step's answer, routers alone`);
    for (const velocity of await Promise.all([0, 1].map(evaluate))) expect(velocity).toEqual(calm);
    expect(await heldBy(cluster, 0)).toEqual({ epoch: 1 + LAYERS, experts: 8 * LAYERS });
    cluster.startShard(1);
    await vi.waitFor(async () => expect(await heldBy(cluster, 1)).toEqual({ epoch: 1, experts: 4 * LAYERS }), 30_000);
    expect(await evaluate(0)).toEqual(calm);
  } finally {
    await cluster.close();
  }
});

test("a shard that is stopped for good is waited for until its connection is silent, then a donor has what it had", async () => {
  const cluster = await DenoiseCluster.start({ bundleFolder, shards: 2 });
  try {
    const evaluate = async (): Promise<Float32Array> => (await cluster.denoise(bundle, latent, 500, rows)).velocity;
    const calm = await evaluate();
    // So many exchanges that their deadline is by what they take, not by the first one's most.
    for (let times = 0; times < 12; times++) await evaluate();
    cluster.stopShard(1);
    expect(await evaluate()).toEqual(calm);
    expect((await heldBy(cluster, 0)).experts).toBe(8 * LAYERS);
    cluster.stopShard(1, false);
    expect(await evaluate()).toEqual(calm);
  } finally {
    await cluster.close();
  }
});

test("a whole denoiser is loaded by the shard that has the other one", async () => {
  const wanFolder = join(folder, "wan");
  await importModel(join(import.meta.dirname, "wan/model"), wanFolder);
  const wan = await openBundle(wanFolder);
  const random = seeded(10);
  const dense = (shape: number[]): Dense => ({
    shape,
    data: Float32Array.from({ length: shape.reduce((a, b) => a * b) }, () => random()),
  });
  const [small, text] = [dense([wan.manifest.latent.channels, 1, 4, 4]), dense([wan.manifest.text.maxTokens, 32])];
  const cluster = await DenoiseCluster.start({ bundleFolder: wanFolder, shards: 2 });
  try {
    const evaluate = async (timestep: number): Promise<Float32Array> =>
      (await cluster.denoise(wan, small, timestep, text)).velocity;
    const [high, low] = [await evaluate(990), await evaluate(10)];
    expect(high).not.toEqual(low);
    cluster.killShard(0);
    expect([await evaluate(990), await evaluate(10)]).toEqual([high, low]);
    expect(await heldBy(cluster, 1)).toEqual({ epoch: 2, experts: 2 });
  } finally {
    await cluster.close();
  }
});

test("with a controller: it is told by the router at once, and asks the donor itself", async () => {
  const cluster = await DenoiseCluster.start({ bundleFolder, shards: 2 });
  try {
    const evaluate = async (): Promise<Float32Array> => (await cluster.denoise(bundle, latent, 500, rows)).velocity;
    const calm = await evaluate();
    // Left to itself it looks once a minute, and calls a shard gone after half of one.
    cluster.startController({ MOEVIE_PLAN_MS: "60000" });
    await vi.waitFor(async () => expect(await cluster.plan(0)).toMatchObject({ leads: true, fence: 1 }), 30_000);
    cluster.killShard(1);
    const startMs = performance.now();
    expect(await evaluate()).toEqual(calm);
    const tookMs = performance.now() - startMs;
    console.log(`${Math.round(tookMs)} ms from kill -9 to the step's answer, a controller leads`);
    expect(tookMs).toBeLessThan(25_000);
    const lastRebalance = { why: expect.stringMatching(/^no shard holds expert/) as string };
    await vi.waitFor(async () => expect(await cluster.plan(0)).toMatchObject({ lastRebalance }), 30_000);
    expect(await cluster.metrics()).not.toMatch(/^moevie_donor_loads_total\{.*\} [1-9]/m);
    expect((await heldBy(cluster, 0)).experts).toBe(8 * LAYERS);
  } finally {
    await cluster.close();
  }
});
