// Experts move while the cluster is asked: the velocity stays the monolith's before, during and after, and no call fails. Real processes.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openBundle } from "@moevie/bundle";
import type { Bundle } from "@moevie/bundle";
import { importStarter } from "@moevie/importer";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { DenoiseCluster } from "./denoise-cluster.ts";
import type { ClusterOptions } from "./denoise-cluster.ts";
import { CALL, change, type ShardPeer } from "./move-experts.ts";
import type { Dense } from "./safetensors-file.ts";
import { BundleSessions, largestDifference, runMonolith, scaleOf } from "./sessions.ts";
import { seeded, writeTinyModel } from "./tiny.ts";

/** Of the velocity's scale. */
const EXACTNESS = 1e-4;
const LAYERS = [0, 1, 2];
const EXPERTS = [0, 1, 2, 3, 4, 5, 6, 7];

const folder = mkdtempSync(join(tmpdir(), "moevie-rebalance-"));
const bundleFolder = join(folder, "bundle");
let bundle: Bundle;
let latent: Dense;
let rows: Dense;
let wanted: Float32Array;

beforeAll(async () => {
  const sizes = writeTinyModel(join(folder, "source"), { layers: 3, experts: 8, frames: 9 });
  await importStarter(join(folder, "source"), bundleFolder);
  bundle = await openBundle(bundleFolder);
  const random = seeded(5);
  const dense = (shape: number[]): Dense => ({
    shape,
    data: Float32Array.from({ length: shape.reduce((a, b) => a * b) }, () => 2 * random()),
  });
  const { channels, spatialStride } = bundle.manifest.latent;
  latent = dense([channels, 3, bundle.manifest.height / spatialStride, bundle.manifest.width / spatialStride]);
  rows = dense([sizes.maxTokens, sizes.textWidth]);
  const whole = await runMonolith(new BundleSessions(bundle), batch(latent), Float32Array.of(500), batch(rows), 0);
  wanted = whole.velocity.data as Float32Array;
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** The same as a batch of one. */
function batch({ shape, data }: Dense): Dense {
  return { shape: [1, ...shape], data };
}

type Placed = ClusterOptions["placement"];

async function withCluster(
  body: (cluster: DenoiseCluster, shards: readonly ShardPeer[]) => Promise<void>,
  placement?: Placed,
): Promise<void> {
  const placed = placement === undefined ? {} : { placement };
  const cluster = await DenoiseCluster.start({ bundleFolder, shards: 2, ...placed });
  const shards = [0, 1].map((index) => cluster.placementOf(index));
  try {
    await body(cluster, shards);
  } finally {
    for (const shard of shards) shard.close();
    await cluster.close();
  }
}

async function expectExact(cluster: DenoiseCluster): Promise<void> {
  const { velocity } = await cluster.denoise(bundle, latent, 500, rows);
  expect(largestDifference(velocity, wanted)).toBeLessThanOrEqual(EXACTNESS * scaleOf(wanted));
}

/** Of each layer. */
async function heldBy(shard: ShardPeer): Promise<number[][]> {
  const { experts } = await shard.unary("GetHoldings", {}, CALL);
  const of = (layer: number): number[] => experts.flatMap((held) => (held.layer === layer ? [held.expert] : []));
  return LAYERS.map((layer) => of(layer).sort((a, b) => a - b));
}

test("every expert moves to the other shard, layer by layer, while evaluations go on: each is the monolith's", async () => {
  await withCluster(async (cluster, shards) => {
    await expectExact(cluster);
    const before = await Promise.all(shards.map(heldBy));
    const moved = new AbortController();
    let during = 0;
    const asking = Promise.all(
      [0, 1].map(async () => {
        for (; !moved.signal.aborted; during++) await expectExact(cluster);
      }),
    );
    let epoch = 1;
    for (const layer of LAYERS) {
      epoch++;
      await Promise.all(shards.map((shard) => change(shard, epoch, layer, EXPERTS)));
      epoch++;
      await Promise.all(shards.map((shard, index) => change(shard, epoch, layer, before[1 - index]?.[layer] ?? [])));
    }
    moved.abort();
    await asking;
    expect(during).toBeGreaterThan(3);
    expect(await Promise.all(shards.map(heldBy))).toEqual(before.toReversed());
    await expectExact(cluster);
  });
});

test("a layer may leave a shard altogether and come back; a change that cannot be made leaves all as it was", async () => {
  await withCluster(async (cluster, [first, second]) => {
    await change(second!, 2, 1, EXPERTS);
    await change(first!, 3, 1, []);
    await expectExact(cluster);
    await change(first!, 4, 1, EXPERTS);
    await change(second!, 5, 1, []);
    await expectExact(cluster);
    const held = await heldBy(first!);
    const refused = { operationId: "x", fence: 1, epoch: 9, layer: 1, experts: [8], deadlineMs: 1000 };
    await expect(first!.unary("ApplyPlacement", refused, CALL)).rejects.toMatchObject({
      reason: "INVALID_FIELD",
      violations: [{ field: "experts", description: "is 8; allowed: 0 to 7" }],
    });
    expect(await heldBy(first!)).toEqual(held);
  });
});

/** Everything but one expert a layer on the first shard: badly balanced. */
const UNEVEN: Placed = [
  { slots: LAYERS.flatMap((layer) => EXPERTS.slice(1).map((expert) => [layer, expert] as const)) },
  { slots: LAYERS.map((layer) => [layer, 0] as const) },
];

/** Five slots of each layer on each shard. */
const COPIES = { MOEVIE_SLOTS: "10" };

const placed = async (shards: readonly ShardPeer[]): Promise<number[]> =>
  (await Promise.all(shards.map(heldBy))).flat().map((experts) => experts.length);

/** Until every layer of every shard has five experts, evaluations go on, each of them exact. */
async function untilPlaced(cluster: DenoiseCluster, shards: readonly ShardPeer[]): Promise<void> {
  const endMs = performance.now() + 60_000;
  while ((await placed(shards)).some((experts) => experts !== 5)) {
    if (performance.now() > endMs) expect.unreachable(`still ${JSON.stringify(await Promise.all(shards.map(heldBy)))}`);
    await expectExact(cluster);
  }
  await expectExact(cluster);
}

test("a controller spreads what is used unevenly, with copies, while evaluations go on", async () => {
  await withCluster(async (cluster, shards) => {
    cluster.startController(COPIES);
    await untilPlaced(cluster, shards);
    await vi.waitFor(async () =>
      expect(await cluster.plan(0)).toMatchObject({
        leads: true,
        phase: { kind: "idle" },
        lastRebalance: { outcome: "done", layersChanged: 3 },
        slotsBalancedness: { before: expect.any(Number) as number, after: expect.any(Number) as number },
      }),
    );
  }, UNEVEN);
});

test.each(["adding", "removing"])(
  "kill -9 of the controller while it is %s: evaluations go on, the next one finishes",
  async (stage) => {
    await withCluster(async (cluster, shards) => {
      const first = cluster.startController(COPIES);
      await expectExact(cluster);
      await vi.waitUntil(
        async () => ((await cluster.plan(0))?.["phase"] as { stage?: string } | undefined)?.stage === stage,
        { timeout: 30_000, interval: 1 },
      );
      first.kill("SIGKILL");
      await expectExact(cluster);
      cluster.startController(COPIES);
      await untilPlaced(cluster, shards);
    }, UNEVEN);
  },
);

test("of two controllers one leads; when it is told to go the other takes over", async () => {
  await withCluster(async (cluster) => {
    const first = cluster.startController();
    await vi.waitFor(async () => expect(await cluster.plan(0)).toMatchObject({ leads: true, fence: 1 }), 30_000);
    cluster.startController();
    await vi.waitFor(async () => expect(await cluster.plan(1)).toMatchObject({ leads: false }), 30_000);
    first.kill("SIGTERM");
    await vi.waitFor(async () => expect(await cluster.plan(1)).toMatchObject({ leads: true, fence: 2 }), 30_000);
  });
});

test("a shard that comes back gets what it had before", async () => {
  await withCluster(async (cluster, shards) => {
    cluster.startController(COPIES);
    await untilPlaced(cluster, shards);
    const held = await Promise.all(shards.map(heldBy));
    cluster.killShard(0);
    cluster.startShard(0);
    await shards[0]!.waitReady(CALL);
    await untilPlaced(cluster, shards);
    expect(await Promise.all(shards.map(heldBy))).toEqual(held);
  }, UNEVEN);
});

test("a shard that leaves for good: another one loads its experts, and the step that waited for them goes on", async () => {
  await withCluster(async (cluster, [first]) => {
    cluster.startController();
    await expectExact(cluster);
    cluster.killShard(1);
    await expectExact(cluster);
    expect(await heldBy(first!)).toEqual(LAYERS.map(() => EXPERTS));
  });
});
