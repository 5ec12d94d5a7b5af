// Random placements with copies over 2, 4 and 8 shards, by every path of the rows: the monolith's velocity, bit for bit the same again,
// also while experts move and when shards are killed in the midst of steps. Real processes, f32. The seed is printed;
// MOEVIE_PLACEMENT_SEED repeats the placements.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openBundle, type Bundle } from "@moevie/bundle";
import { importStarter } from "@moevie/importer";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { freePorts } from "../support/free-port.ts";
import { tokenDenoiser } from "../support/token-denoiser.ts";
import { DenoiseCluster } from "./denoise-cluster.ts";
import { moveExperts, type Held, type ShardPeer } from "./move-experts.ts";
import { MARGIN, judgeChoices } from "./near-ties.ts";
import { readTensors, type Dense } from "./safetensors-file.ts";
import { BundleSessions, largestDifference, runMonolith, runPieces, scaleOf } from "./sessions.ts";
import { seeded, writeTinyModel } from "./tiny.ts";

/** Of the velocity's scale. */
const EXACTNESS = 1e-4;
/** Of all choices of experts: so many may be near ties. */
const NEAR_SHARE_MAX = 1e-4;
const SEED = Number(process.env["MOEVIE_PLACEMENT_SEED"] ?? Date.now() % 2 ** 31);
const SHARDS = 8;
/** So many processes start slowly on a machine that is busy with others. */
const TEST_MS_MAX = 400_000;
const [LAYERS, EXPERTS] = [3, 8];

interface Case {
  readonly latent: Dense;
  readonly timestep: number;
  readonly rows: Dense;
  readonly origin: number;
  readonly velocity: Float32Array;
}

const folder = mkdtempSync(join(tmpdir(), "moevie-placements-"));
const bundleFolder = join(folder, "bundle");
const cases: Case[] = [];
/** What the monolith's gate chose, rows by layer and expert. */
const chosen = Array.from({ length: LAYERS }, () => Array.from({ length: EXPERTS }, () => 0));
let bundle: Bundle;
/** What the first path gave: wherever experts lie and whichever way rows go, these are the bits. */
let bits: Float32Array[] | undefined;

beforeAll(async () => {
  const sizes = writeTinyModel(join(folder, "source"), { layers: LAYERS, experts: EXPERTS, frames: 9 });
  await importStarter(join(folder, "source"), bundleFolder);
  bundle = await openBundle(bundleFolder);
  const sessions = new BundleSessions(bundle);
  const weights = readTensors(join(folder, "source", "transformer", "model.safetensors"));
  const random = seeded(23);
  const dense = (shape: number[]): Dense => ({
    shape,
    data: Float32Array.from({ length: shape.reduce((a, b) => a * b) }, () => 2 * random()),
  });
  const { channels, spatialStride } = bundle.manifest.latent;
  const sides = [bundle.manifest.height, bundle.manifest.width].map((side) => side / spatialStride);
  const { topK } = tokenDenoiser(bundle);
  let [near, choices] = [0, 0];
  for (const [frames, timestep, origin] of [
    [3, 980, 0],
    [1, 400, 4],
    [5, 30, 11],
  ] as const) {
    const latent = dense([channels, frames, ...sides]);
    const rows = dense([sizes.maxTokens, sizes.textWidth]);
    const asked = [batch(latent), Float32Array.of(timestep), batch(rows), origin] as const;
    const whole = await runMonolith(sessions, ...asked);
    cases.push({ latent, timestep, rows, origin, velocity: whole.velocity.data as Float32Array });
    const pieces = await runPieces(sessions, ...asked);
    pieces.rows.forEach(({ data }, layer) => {
      const ids = whole.ids[layer]!.data as Int32Array;
      const gate = weights.get(`blocks.${layer}.ffn.gate.weight`)!;
      const judged = judgeChoices(data as Float32Array, ids, gate, topK);
      expect(judged.wrong).toBe(0);
      near += judged.near;
      choices += ids.length / topK;
    });
    whole.ids.forEach(({ data }, layer) => (data as Int32Array).forEach((expert) => chosen[layer]![expert]!++));
  }
  console.log(`MOEVIE_PLACEMENT_SEED=${SEED}; ${near} of ${choices} choices are decided by less than ${MARGIN}`);
  expect(near).toBeLessThanOrEqual(NEAR_SHARE_MAX * choices);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** The same as a batch of one. */
function batch({ shape, data }: Dense): Dense {
  return { shape: [1, ...shape], data };
}

/** Every expert of every layer on at least `copiesMin` of the first `shards`; the others have nothing. */
function randomPlacement(shards: number, copiesMin: number): number[][][] {
  const random = seeded(SEED + 16 * copiesMin + shards);
  const below = (count: number): number => Math.floor(((random() + 1) / 2) * count);
  const held = Array.from({ length: SHARDS }, () => Array.from({ length: LAYERS }, (): number[] => []));
  for (let layer = 0; layer < LAYERS; layer++)
    for (let expert = 0; expert < EXPERTS; expert++) {
      const order = Array.from({ length: shards }, (_, shard) => ({ shard, key: random() })).sort(
        (a, b) => a.key - b.key,
      );
      const most = Math.max(copiesMin, 1 + below(3));
      for (const { shard } of order.slice(0, most)) held[shard]![layer]!.push(expert);
    }
  return held;
}

const nameOf = (router: number): string => (router === 0 ? "router" : `router-${router}`);

const evaluate = async (cluster: DenoiseCluster, router: number, one: Case): Promise<Float32Array> =>
  (await cluster.denoise(bundle, one.latent, one.timestep, one.rows, one.origin, "", router)).velocity;

async function oneByOne(cluster: DenoiseCluster, router: number): Promise<Float32Array[]> {
  const velocities: Float32Array[] = [];
  for (const one of cases) velocities.push(await evaluate(cluster, router, one));
  return velocities;
}

const atOnce = (cluster: DenoiseCluster, router: number): Promise<Float32Array[]> =>
  Promise.all(cases.map((one) => evaluate(cluster, router, one)));

function expectExact(velocities: readonly Float32Array[]): void {
  velocities.forEach((velocity, at) => {
    const wanted = cases[at]?.velocity ?? new Float32Array(0);
    expect(largestDifference(velocity, wanted)).toBeLessThanOrEqual(EXACTNESS * scaleOf(wanted));
  });
  bits ??= [...velocities];
  expect(velocities).toEqual(bits);
}

const names = (slots: readonly (readonly number[])[]): string[] => slots.map((slot) => slot.join(".")).sort();

/** A cluster whose experts are put elsewhere again and again; its routers send rows by one path each. */
class Placed {
  readonly cluster: DenoiseCluster;
  readonly routers: readonly number[];
  readonly #shards: readonly ShardPeer[];
  #held: Held;
  #epoch = 1;

  constructor(cluster: DenoiseCluster, routers: readonly number[], held: Held) {
    this.cluster = cluster;
    this.routers = routers;
    this.#held = held;
    this.#shards = held.map((_, index) => cluster.placementOf(index));
  }

  /** Until the routers, too, know it. */
  async move(wanted: Held): Promise<void> {
    this.#epoch = await moveExperts(this.#shards, this.#held, wanted, this.#epoch);
    this.#held = wanted;
    const known = wanted.map((layers) => names(layers.flatMap((experts, layer) => experts.map((e) => [layer, e]))));
    for (const router of this.routers)
      await vi.waitFor(async () => {
        const { shards } = await this.cluster.experts(nameOf(router));
        expect(shards.map(({ slots }) => names(slots))).toEqual(known);
      }, 10_000);
  }

  async close(): Promise<void> {
    for (const shard of this.#shards) shard.close();
    await this.cluster.close();
  }
}

async function start(paths: readonly string[]): Promise<Placed> {
  const held = randomPlacement(SHARDS, 1);
  const placement = held.map((layers) => ({
    slots: layers.flatMap((experts, layer) => experts.map((expert) => [layer, expert] as const)),
  }));
  const transport = paths.includes("tcp")
    ? { firstPort: await freePorts(SHARDS) }
    : { routers: paths.length, routersWithoutSegment: 1 };
  const cluster = await DenoiseCluster.start({ bundleFolder, shards: SHARDS, placement, ...transport });
  for (const [router, path] of paths.entries())
    await vi.waitFor(async () => {
      const lines = (await cluster.metrics(nameOf(router))).match(
        new RegExp(`^moevie_exchange_path.*path="${path}".* 1$`, "gm"),
      );
      expect(lines).toHaveLength(SHARDS);
    }, 10_000);
  return new Placed(cluster, [...paths.keys()], held);
}

/** Exact, the same bits one by one, at once and once more, and what the gate chose is what the monolith's chose. */
async function expectPlacementExact({ cluster, routers }: Placed): Promise<void> {
  for (const router of routers) {
    const before = (await cluster.experts(nameOf(router))).rows;
    expectExact(await oneByOne(cluster, router));
    const after = (await cluster.experts(nameOf(router))).rows;
    expect(after.map((rows, layer) => rows.map((count, e) => count - before[layer]![e]!))).toEqual(chosen);
    for (const again of [await atOnce(cluster, router), await oneByOne(cluster, router)]) expectExact(again);
  }
}

/** Experts move to another placement while every router is asked: each evaluation has the bits of before. */
async function moveMeanwhile(placed: Placed, wanted: Held): Promise<void> {
  const { cluster, routers } = placed;
  const moved = new AbortController();
  const during = routers.map(() => 0);
  const asking = routers.map(async (router) => {
    for (; !moved.signal.aborted; during[router]!++) expectExact(await atOnce(cluster, router));
  });
  await Promise.all([...asking, placed.move(wanted).finally(() => moved.abort())]);
  for (const count of during) expect(count).toBeGreaterThan(1);
}

/** Shards are killed while exchanges are under way: rows go to other holders, and every evaluation has the bits of before. */
async function killMeanwhile({ cluster, routers }: Placed, shards: readonly number[]): Promise<void> {
  for (const shard of shards) {
    const running = routers.flatMap((router) => Array.from({ length: 4 }, () => atOnce(cluster, router)));
    await Promise.race(running);
    cluster.killShard(shard);
    for (const velocities of await Promise.all(running)) expectExact(velocities);
  }
  for (const router of routers) expectExact(await oneByOne(cluster, router));
  const retried = await Promise.all(routers.map((router) => cluster.metrics(nameOf(router))));
  expect(retried.join("")).toMatch(/^moevie_exchange_retries_total\{.*\} [1-9]/m);
}

test.each([[["segment", "unix"]], [["tcp"]]])(
  "random placements by %s: exact and bit for bit the same, also while experts move and shards are killed",
  async (paths) => {
    const placed = await start(paths);
    try {
      await expectPlacementExact(placed);
      for (const shards of [4, 2]) {
        await placed.move(randomPlacement(shards, 1));
        await expectPlacementExact(placed);
      }
      await moveMeanwhile(placed, randomPlacement(4, 3));
      await expectPlacementExact(placed);
      await killMeanwhile(placed, [0, 2]);
    } finally {
      await placed.close();
    }
  },
  TEST_MS_MAX,
);
