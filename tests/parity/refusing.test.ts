// A shard that has no memory for what a lost one held refuses it, and others take it, without a controller and with one: the step that waited
// goes on with the same result, bit for bit. Real processes; what is free is told to the one that refuses.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openBundle } from "@moevie/bundle";
import type { Bundle } from "@moevie/bundle";
import { importModel } from "@moevie/importer";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { LittleMemory } from "../support/little-memory.ts";
import { DenoiseCluster } from "./denoise-cluster.ts";
import type { Dense } from "./safetensors-file.ts";
import { tinyCase } from "./tiny-case.ts";
import { seeded } from "./tiny.ts";

const LAYERS = [0, 1, 2];
const WAIT_MS = 30_000;
/** Of each layer, the experts that shard 0 has of the even spread over three, and all that it and shard 1 have together. */
const OWN = [3, 2, 3];
const EXPERTS = [0, 1, 2, 3, 4, 5, 6, 7];

const folder = mkdtempSync(join(tmpdir(), "moevie-refusing-"));
let bundle: Bundle;
let latent: Dense;
let rows: Dense;

beforeAll(async () => {
  ({ bundle, latent, rows } = await tinyCase(folder, { layers: LAYERS.length, experts: EXPERTS.length }, 11));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const evaluate = async (cluster: DenoiseCluster): Promise<Float32Array> =>
  (await cluster.denoise(bundle, latent, 500, rows)).velocity;

/** Three shards, of which those named have only so many bytes free. */
async function withCluster(
  freeBytes: Readonly<Record<number, number>>,
  body: (cluster: DenoiseCluster, memories: readonly LittleMemory[]) => Promise<void>,
): Promise<void> {
  const at = mkdtempSync(join(folder, "memory-"));
  const memories: LittleMemory[] = [];
  const shardSettings = Object.fromEntries(
    Object.entries(freeBytes).map(([shard, bytes]) => {
      const memory = new LittleMemory(mkdtempSync(join(at, "shard-")), bytes);
      memories.push(memory);
      return [shard, memory.environment];
    }),
  );
  const cluster = await DenoiseCluster.start({ bundleFolder: join(folder, "bundle"), shards: 3, shardSettings });
  try {
    await body(cluster, memories);
  } finally {
    await cluster.close();
  }
}

test("without a controller: the donor that the rule finds refuses for memory, the next one by the rule takes all, and the bits are the same", async () => {
  await withCluster({ 0: 0 }, async (cluster) => {
    const [calm, before] = [await evaluate(cluster), await cluster.heldBy(0, LAYERS.length)];
    expect(before.map(({ length }) => length)).toEqual(OWN);
    cluster.killShard(2);
    expect(await evaluate(cluster)).toEqual(calm);
    expect(await cluster.heldBy(0, LAYERS.length)).toEqual(before);
    // The step did not wait for experts that it has no rows for.
    const all = LAYERS.map((layer) => EXPERTS.length - (OWN[layer] ?? 0));
    await vi.waitFor(
      async () => expect((await cluster.heldBy(1, LAYERS.length)).map(({ length }) => length)).toEqual(all),
      WAIT_MS,
    );
    expect(await cluster.metrics()).toMatch(/^moevie_donor_loads_total\{[^}]*outcome="refused"[^}]*\} [1-9]/m);
    expect(await evaluate(cluster)).toEqual(calm);
  });
});

test("a whole denoiser that one shard has no memory for is loaded by the next, and the bits are the same", async () => {
  const bundleFolder = join(folder, "wan");
  await importModel(join(import.meta.dirname, "wan/model"), bundleFolder);
  const wan = await openBundle(bundleFolder);
  const random = seeded(12);
  const dense = (shape: number[]): Dense => ({
    shape,
    data: Float32Array.from({ length: shape.reduce((a, b) => a * b) }, () => random()),
  });
  const [small, text] = [dense([wan.manifest.latent.channels, 1, 4, 4]), dense([wan.manifest.text.maxTokens, 32])];
  const memory = new LittleMemory(mkdtempSync(join(folder, "memory-")), 0);
  // Of three shards the second alone has the one for low noise.
  const cluster = await DenoiseCluster.start({ bundleFolder, shards: 3, shardSettings: { 0: memory.environment } });
  try {
    const low = async (): Promise<Float32Array> => (await cluster.denoise(wan, small, 10, text)).velocity;
    const calm = await low();
    cluster.killShard(1);
    expect(await low()).toEqual(calm);
    for (const outcome of ["refused", "done"])
      await vi.waitFor(async () => {
        const counted = new RegExp(`^moevie_donor_loads_total\\{[^}]*outcome="${outcome}"[^}]*\\} 1$`, "m");
        expect(await cluster.metrics()).toMatch(counted);
      }, WAIT_MS);
  } finally {
    await cluster.close();
  }
});

/** It leads, and moves nothing for a gain. Answers the records of its log so far. */
async function startController(cluster: DenoiseCluster): Promise<() => readonly object[]> {
  let log = "";
  cluster.startController({ MOEVIE_PLAN_GAIN_MIN: "1", MOEVIE_LOG_LEVEL: "warn" }, (text) => (log += text));
  await vi.waitFor(async () => expect(await cluster.plan(0)).toMatchObject({ leads: true }), WAIT_MS);
  return () => log.split("\n").flatMap((line) => (line.startsWith("{") ? [JSON.parse(line) as object] : []));
}

test("with a controller: the shard that refuses is planned with what it has room for, the other takes the rest; once there is memory that is forgotten", async () => {
  const roomFor = 3;
  const bytes = 4 * (await bundle.weightElements(`experts.${roomFor}`));
  await withCluster({ 0: bytes }, async (cluster, [memory]) => {
    const calm = await evaluate(cluster);
    const records = await startController(cluster);
    cluster.killShard(2);
    expect(await evaluate(cluster)).toEqual(calm);
    const [first, second] = await Promise.all([0, 1].map((shard) => cluster.heldBy(shard, LAYERS.length)));
    // Of layer 1 it had fewer than it has room for.
    expect(first?.[1]).toHaveLength(roomFor);
    for (const experts of first ?? []) expect(experts.length).toBeLessThanOrEqual(roomFor);
    for (const layer of LAYERS)
      expect([...(first?.[layer] ?? []), ...(second?.[layer] ?? [])].toSorted((a, b) => a - b)).toEqual(EXPERTS);
    const refusals = [
      { shard: 0, layer: 0, room: roomFor, why: expect.stringContaining(`${bytes} are free`) as string },
    ];
    expect(await cluster.plan(0)).toMatchObject({ refusals, unplaced: [], lastRebalance: { outcome: "done" } });
    const told = { shard: "0", layer: 0, room: roomFor, reason: "OUT_OF_MEMORY", freeBytes: bytes };
    const msg = expect.stringContaining("a shard refused experts") as string;
    expect(records()).toEqual(expect.arrayContaining([expect.objectContaining({ ...told, msg })]));
    const page = await cluster.metrics("controller-0");
    expect(page).toMatch(/^moevie_controller_refusals_total\{[^}]*shard="0"[^}]*\} 1$/m);
    expect(page).toMatch(/^moevie_controller_bounded_shards\{[^}]*\} 1$/m);
    memory?.free(2 ** 40);
    await vi.waitFor(async () => expect(await cluster.plan(0)).toMatchObject({ refusals: [] }), WAIT_MS);
    expect(await cluster.metrics("controller-0")).toMatch(/^moevie_controller_bounded_shards\{[^}]*\} 0$/m);
    expect(await evaluate(cluster)).toEqual(calm);
  });
});

test("with a controller and no room anywhere: the plan names what has none, and the step goes on as soon as there is some", async () => {
  await withCluster({ 0: 0, 1: 0 }, async (cluster, [, memory]) => {
    const calm = await evaluate(cluster);
    await startController(cluster);
    cluster.killShard(2);
    const waiting = evaluate(cluster);
    const why = expect.stringMatching(/^no shard holds expert 2 of layer 0, and none has room for it$/) as string;
    await vi.waitFor(async () => {
      const plan = await cluster.plan(0);
      expect(plan).toMatchObject({ why, refusals: [{ shard: 0 }, { shard: 1 }] });
      expect(plan?.["unplaced"]).toHaveLength(EXPERTS.length * LAYERS.length - 16);
    }, WAIT_MS);
    memory?.free(2 ** 40);
    expect(await waiting).toEqual(calm);
  });
});
