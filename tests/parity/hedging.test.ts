// A shard that is stopped, or slow, in the midst of steps while others hold what it holds: its rows go to them before any deadline, and
// every velocity stays the same, bit for bit. Real processes.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import type { Bundle } from "@moevie/bundle";
import { afterAll, beforeAll, expect, test } from "vitest";
import { DenoiseCluster } from "./denoise-cluster.ts";
import type { ClusterOptions } from "./denoise-cluster.ts";
import type { Dense } from "./safetensors-file.ts";
import { tinyCase } from "./tiny-case.ts";

const [LAYERS, EXPERTS] = [3, 8];
/** Evaluations after which every kind of exchange was seen often enough. */
const CALM = 24;

const folder = mkdtempSync(join(tmpdir(), "moevie-hedging-"));
const bundleFolder = join(folder, "bundle");
let bundle: Bundle;
let latent: Dense;
let rows: Dense;

beforeAll(async () => {
  ({ bundle, latent, rows } = await tinyCase(folder, { layers: LAYERS, experts: EXPERTS }, 7));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

type Slots = NonNullable<ClusterOptions["placement"]>[number]["slots"];
const every = (holds: (expert: number) => boolean): { slots: Slots } => ({
  slots: Array.from({ length: LAYERS * EXPERTS }, (_, at) => [Math.floor(at / EXPERTS), at % EXPERTS] as const).filter(
    ([, expert]) => holds(expert),
  ),
});
/** Of a counter, summed over its series. */
function counted(page: string, name: string, labels = ""): number {
  const lines = page.split("\n").filter((line) => line.startsWith(`${name}{`) && line.includes(labels));
  return lines.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" "))), 0);
}

async function withCluster(
  placement: ClusterOptions["placement"] & object,
  body: (evaluate: () => Promise<Float32Array>, cluster: DenoiseCluster) => Promise<void>,
): Promise<void> {
  const cluster = await DenoiseCluster.start({ bundleFolder, shards: placement.length, placement });
  try {
    await body(async () => (await cluster.denoise(bundle, latent, 500, rows)).velocity, cluster);
  } finally {
    await cluster.close();
  }
}

test.each([
  ["one other shard", [every(() => true), every(() => true)]],
  ["two others together", [every(() => true), every((expert) => expert < 4), every((expert) => expert >= 4)]],
])(
  "a shard is stopped in the midst of steps, %s: they end as ever, and no exchange waits for its deadline",
  async (_what, placement) => {
    await withCluster(placement, async (evaluate, cluster) => {
      const calm = await evaluate();
      for (let times = 0; times < CALM; times++) expect(await evaluate()).toEqual(calm);
      const running = Promise.all(Array.from({ length: 4 }, evaluate));
      await pause(3);
      cluster.stopShard(0);
      for (const velocity of await running) expect(velocity).toEqual(calm);
      for (let times = 0; times < 4; times++) expect(await evaluate()).toEqual(calm);
      const page = await cluster.metrics();
      expect(counted(page, "moevie_exchange_hedges_total", 'shard="0",outcome="won"')).toBeGreaterThan(0);
      expect(counted(page, "moevie_exchange_retries_total", 'shard="0"')).toBe(0);
      cluster.stopShard(0, false);
      await expect
        .poll(async () => counted(await cluster.metrics(), "moevie_exchange_late_answers_total", 'shard="0"'))
        .toBeGreaterThan(0);
      for (let times = 0; times < 4; times++) expect(await evaluate()).toEqual(calm);
    });
  },
);

test("a shard ten times slower than others: hedges are few, nothing fails, every velocity is the same", async () => {
  await withCluster([every(() => true), every(() => true)], async (evaluate, cluster) => {
    const calm = await evaluate();
    for (let times = 0; times < CALM; times++) expect(await evaluate()).toEqual(calm);
    const done = new AbortController();
    const slowing = (async () => {
      while (!done.signal.aborted) {
        cluster.stopShard(0);
        await pause(90);
        cluster.stopShard(0, false);
        await pause(10);
      }
    })();
    for (let times = 0; times < 60; times++) expect(await evaluate()).toEqual(calm);
    done.abort();
    await slowing;
    const page = await cluster.metrics();
    const [hedges, exchanges] = [
      counted(page, "moevie_exchange_hedges_total"),
      counted(page, "moevie_exchange_duration_seconds_count"),
    ];
    expect(hedges).toBeGreaterThan(0);
    expect(hedges).toBeLessThanOrEqual(10 + 0.05 * exchanges);
    expect(counted(page, "moevie_exchange_retries_total", 'shard="0"')).toBe(0);
  });
});
