// Shards join and leave while the cluster is asked: no call fails, and every velocity is that of an undisturbed cluster, bit for bit (with
// two experts a row the order of a sum does not change its bits). Real processes.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Bundle } from "@moevie/bundle";
import { afterAll, beforeAll, expect, test } from "vitest";
import { DenoiseCluster } from "./denoise-cluster.ts";
import type { Dense } from "./safetensors-file.ts";
import { tinyCase } from "./tiny-case.ts";

const LAYERS = [0, 1, 2];
const EXPERTS = [0, 1, 2, 3, 4, 5, 6, 7];
const WAIT_MS = 90_000;

const folder = mkdtempSync(join(tmpdir(), "moevie-joining-"));
let bundle: Bundle;
let latent: Dense;
let rows: Dense;

beforeAll(async () => {
  ({ bundle, latent, rows } = await tinyCase(folder, { layers: 3, experts: 8 }, 5));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const ascending = (a: number, b: number): number => a - b;
const evaluate = async (cluster: DenoiseCluster): Promise<Float32Array> =>
  (await cluster.denoise(bundle, latent, 500, rows)).velocity;

/** Evaluations go on, each the same as `wanted`, until `reached`. */
async function untilReached(
  cluster: DenoiseCluster,
  wanted: Float32Array,
  reached: () => Promise<boolean>,
): Promise<void> {
  const endMs = performance.now() + WAIT_MS;
  while (!(await reached().catch(() => false))) {
    if (performance.now() > endMs) expect.unreachable(JSON.stringify(await cluster.plan(0)));
    expect(await evaluate(cluster)).toEqual(wanted);
  }
  expect(await evaluate(cluster)).toEqual(wanted);
}

test("a shard that joins starts empty, is found by router and controller, and gets its share; those that were there are not restarted", async () => {
  const cluster = await DenoiseCluster.start({ bundleFolder: join(folder, "bundle"), shards: 2, numbered: true });
  try {
    const wanted = await evaluate(cluster);
    cluster.startController();
    cluster.startShard(2);
    await untilReached(cluster, wanted, async () =>
      (await cluster.heldBy(2, LAYERS.length)).every((experts) => experts.length > 0),
    );
    const all = await Promise.all([0, 1, 2].map((index) => cluster.heldBy(index, LAYERS.length)));
    for (const layer of LAYERS)
      expect([...new Set(all.flatMap((held) => held[layer] ?? []))].toSorted(ascending)).toEqual(EXPERTS);
    expect(await cluster.metrics()).toMatch(/moevie_expert_shard_ready\{[^}]*shard="2"[^}]*\} 1/);
  } finally {
    await cluster.close();
  }
});

test("a shard that is told to end hands its experts over first: no row is lost, nobody waits, and it is gone at once", async () => {
  const options = { bundleFolder: join(folder, "bundle"), shards: 3, numbered: true, leaveMs: WAIT_MS };
  const cluster = await DenoiseCluster.start(options);
  try {
    const wanted = await evaluate(cluster);
    cluster.startController();
    let code: number | null | undefined;
    const ended = cluster.endShard(1).then((value) => (code = value));
    await untilReached(cluster, wanted, () => Promise.resolve(code !== undefined));
    await ended;
    expect(code).toBe(0);
    const left = await Promise.all([0, 2].map((index) => cluster.heldBy(index, LAYERS.length)));
    for (const layer of LAYERS)
      expect([...new Set(left.flatMap((held) => held[layer] ?? []))].toSorted(ascending)).toEqual(EXPERTS);
    expect(await cluster.metrics()).not.toMatch(/moevie_exchange_retries_total\{[^}]*\} [1-9]/);
    // It comes back under its number, at once a member again.
    cluster.startShard(1);
    await untilReached(cluster, wanted, async () =>
      (await cluster.heldBy(1, LAYERS.length)).every((experts) => experts.length > 0),
    );
    expect((await cluster.plan(0))?.["suspects"]).toEqual([]);
  } finally {
    await cluster.close();
  }
});

test("a shard that is told to end without a controller ends after its time; the rows that waited are computed once it is back", async () => {
  const options = { bundleFolder: join(folder, "bundle"), shards: 2, leaveMs: 300 };
  const cluster = await DenoiseCluster.start(options);
  try {
    const wanted = await evaluate(cluster);
    const ended = cluster.endShard(1);
    const during = evaluate(cluster);
    expect(await ended).toBe(0);
    const waiting = evaluate(cluster);
    cluster.startShard(1);
    expect(await Promise.all([during, waiting])).toEqual([wanted, wanted]);
  } finally {
    await cluster.close();
  }
});
