// The cluster against the monolithic graph: the same velocity for any number of shards, placement and path of the rows, bit for bit
// the same again, and the same when a shard is killed. Real processes, f32.
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openBundle } from "@moevie/bundle";
import type { Bundle } from "@moevie/bundle";
import { importStarter } from "@moevie/importer";
import { placementOf, planPlacement } from "@moevie/placement";
import { afterAll, beforeAll, expect, onTestFinished, test, vi } from "vitest";
import { freePorts } from "../support/free-port.ts";
import { DenoiseCluster } from "./denoise-cluster.ts";
import type { ClusterOptions } from "./denoise-cluster.ts";
import type { Dense } from "./safetensors-file.ts";
import { BundleSessions, largestDifference, runMonolith, scaleOf } from "./sessions.ts";
import { seeded, writeTinyModel } from "./tiny.ts";

/** Of the velocity's scale. */
const EXACTNESS = 1e-4;

const folder = mkdtempSync(join(tmpdir(), "moevie-exactness-"));
const bundleFolder = join(folder, "bundle");
let bundle: Bundle;
let cases: { latent: Dense; timestep: number; rows: Dense; origin: number; velocity: Float32Array }[] = [];

beforeAll(async () => {
  const sizes = writeTinyModel(join(folder, "source"), { layers: 3, experts: 8, frames: 9, draft: true });
  await importStarter(join(folder, "source"), bundleFolder);
  bundle = await openBundle(bundleFolder);
  const sessions = new BundleSessions(bundle);
  const random = seeded(11);
  const dense = (shape: number[]): Dense => ({
    shape,
    data: Float32Array.from({ length: shape.reduce((a, b) => a * b) }, () => 2 * random()),
  });
  const { latent } = bundle.manifest;
  const [height, width] = [bundle.manifest.height, bundle.manifest.width].map(
    (side) => side / latent.spatialStride,
  ) as [number, number];
  for (const [frames, timestep, origin] of [
    [3, 999, 0],
    [1, 500, 4],
    [5, 17, 11],
  ] as const) {
    const z = dense([latent.channels, frames, height, width]);
    const rows = dense([sizes.maxTokens, sizes.textWidth]);
    const whole = await runMonolith(sessions, batch(z), Float32Array.of(timestep), batch(rows), origin);
    cases.push({ latent: z, timestep, rows, origin, velocity: whole.velocity.data as Float32Array });
  }
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** The same as a batch of one. */
function batch(one: Dense): Dense {
  return { shape: [1, ...one.shape], data: one.data };
}

/** Something else of the same shape. */
function other(one: Dense): Dense {
  return { shape: one.shape, data: one.data.map((value) => 1 - 2 * value) };
}

async function evaluateAll(cluster: DenoiseCluster, router = 0): Promise<Float32Array[]> {
  const all = cases.map(({ latent, timestep, rows, origin }) =>
    cluster.denoise(bundle, latent, timestep, rows, origin, "", router),
  );
  return (await Promise.all(all)).map((result) => result.velocity);
}

function expectExact(velocities: readonly Float32Array[]): void {
  velocities.forEach((velocity, at) => {
    const wanted = cases[at]?.velocity ?? new Float32Array(0);
    expect(largestDifference(velocity, wanted)).toBeLessThanOrEqual(EXACTNESS * scaleOf(wanted));
  });
}

async function withCluster(
  options: Omit<ClusterOptions, "bundleFolder">,
  body: (cluster: DenoiseCluster) => Promise<void>,
): Promise<void> {
  const cluster = await DenoiseCluster.start({ bundleFolder, ...options });
  try {
    await body(cluster);
  } finally {
    await cluster.close();
  }
}

const all = [0, 1, 2, 3, 4, 5, 6, 7];
/** Everything but one expert on shard 0; layer 1 turned round; a third shard with copies only. */
const ODD = [
  { slots: [...all.slice(1).map((e) => [0, e] as const), [1, 3] as const, ...all.map((e) => [2, e] as const)] },
  {
    slots: [
      [0, 0] as const,
      ...all
        .toReversed()
        .filter((e) => e !== 3)
        .map((e) => [1, e] as const),
    ],
  },
  { slots: [[0, 0] as const, [0, 5] as const, [1, 3] as const, [2, 2] as const] },
];

/** What `moevie experts plan` makes of skewed loads: in each layer one expert on all four shards and one on two. */
const PLANNED = placementOf(
  planPlacement(
    [0, 1, 2].map((layer) => Float64Array.from(all, (expert) => [90, 50, 9, 8, 7, 6, 5, 4][(expert + layer) % 8] ?? 0)),
    { slots: 12, shards: 4, groups: 1, nodes: 1 },
  ),
  1,
).shards;

test.each([
  ["one shard", { shards: 1 }],
  ["two shards", { shards: 2 }],
  ["four shards", { shards: 4 }],
  ["eight shards", { shards: 8 }],
  ["an odd placement with copies", { shards: 3, placement: ODD }],
  ["a planned placement with copies", { shards: 4, placement: PLANNED }],
])("%s: as the monolith, and bit for bit the same again", async (_name, options) => {
  await withCluster(options, async (cluster) => {
    const first = await evaluateAll(cluster);
    expectExact(first);
    expect(await evaluateAll(cluster)).toEqual(first);
  });
});

test("an evaluation leaves nothing behind for the next one of its shape", async () => {
  await withCluster({ shards: 2 }, async (cluster) => {
    const [{ latent, timestep, rows }] = cases as [(typeof cases)[number]];
    const first = await cluster.denoise(bundle, latent, timestep, rows);
    const between = await cluster.denoise(bundle, other(latent), 3, other(rows));
    expect(largestDifference(between.velocity, first.velocity)).toBeGreaterThan(0.1 * scaleOf(first.velocity));
    expect((await cluster.denoise(bundle, latent, timestep, rows)).velocity).toEqual(first.velocity);
  });
});

test.each([
  ["one shard", 1],
  ["two shards", 2],
])("%s: the draft is as its monolith, also while the standard variant is asked", async (_name, shards) => {
  await withCluster({ shards }, async (cluster) => {
    const sessions = new BundleSessions(bundle);
    const all = cases.map(async ({ latent, timestep, rows, origin }) => {
      const [draft, standard] = await Promise.all(
        ["draft", "standard"].map((variant) => cluster.denoise(bundle, latent, timestep, rows, origin, variant)),
      );
      return { draft: draft!.velocity, standard: standard!.velocity };
    });
    const got = await Promise.all(all);
    expectExact(got.map(({ standard }) => standard));
    for (const [at, { latent, timestep, rows, origin }] of cases.entries()) {
      const inputs = [batch(latent), Float32Array.of(timestep), batch(rows)] as const;
      const whole = await runMonolith(sessions, ...inputs, origin, "draft.");
      const wanted = whole.velocity.data as Float32Array;
      expect(largestDifference(got[at]!.draft, wanted)).toBeLessThanOrEqual(EXACTNESS * scaleOf(wanted));
      expect(largestDifference(got[at]!.draft, got[at]!.standard)).toBeGreaterThan(0.1 * scaleOf(wanted));
    }
  });
});

test("a variant the bundle has not is refused by its field", async () => {
  await withCluster({ shards: 1 }, async (cluster) => {
    const [{ latent, timestep, rows }] = cases as [(typeof cases)[number]];
    await expect(cluster.denoise(bundle, latent, timestep, rows, 0, "sketch")).rejects.toMatchObject({
      reason: "INVALID_FIELD",
      violations: [{ field: "head.variant", description: 'is "sketch"; allowed: standard, draft' }],
    });
  });
});

test.each(["f32", "bf16"] as const)("TCP, Unix sockets and segments give the same bits of rows in %s", async (wire) => {
  const results: Float32Array[][] = [];
  for (const [path, transport] of [
    ["segment", {}],
    ["unix", { segmentFolder: "none" }],
    ["tcp", { firstPort: await freePorts(2) }],
  ] as const)
    await withCluster({ shards: 2, wire, ...transport }, async (cluster) => {
      await vi.waitFor(async () =>
        expect(
          (await cluster.metrics()).match(new RegExp(`^moevie_exchange_path.*path="${path}".* 1$`, "gm")),
        ).toHaveLength(2),
      );
      results.push(await evaluateAll(cluster));
      const parts = (await cluster.metrics()).matchAll(/^moevie_exchange_seconds_total\{.*part="(\w+)"/gm);
      expect(new Set(Array.from(parts, ([, part]) => part))).toEqual(
        new Set(["credit", "wire_up", "queue", "compute", "wire_down"]),
      );
    });
  expect(results[1]).toEqual(results[0]);
  expect(results[2]).toEqual(results[0]);
});

test("a router that is killed leaves no segment behind, and those of others are as they were", async () => {
  const segmentFolder = join(folder, "segments");
  mkdirSync(segmentFolder);
  await withCluster({ shards: 2, routers: 2, segmentFolder }, async (cluster) => {
    const before = await evaluateAll(cluster);
    const running = Promise.allSettled([evaluateAll(cluster, 1), evaluateAll(cluster, 1)]);
    await new Promise((resolve) => setTimeout(resolve, 5));
    cluster.killRouter(1);
    expect(await evaluateAll(cluster)).toEqual(before);
    await running;
    expect(readdirSync(segmentFolder)).toEqual([]);
  });
});

test("a folder without room for rows is no folder: they go by the socket", async () => {
  const segmentFolder = join(folder, "full");
  mkdirSync(segmentFolder);
  const mounted = spawnSync("mount", ["-t", "tmpfs", "-o", "size=64k", "none", segmentFolder], { encoding: "utf8" });
  onTestFinished(() => void spawnSync("umount", ["--lazy", segmentFolder]));
  expect(mounted.status, mounted.stderr).toBe(0);
  await withCluster({ shards: 1, segmentFolder }, async (cluster) => {
    expectExact(await evaluateAll(cluster));
    expect(await cluster.metrics()).toMatch(/^moevie_exchange_path.*path="unix".* 1$/m);
    expect(readdirSync(segmentFolder)).toEqual([]);
  });
});

test("killing a shard changes nothing: its rows go to the other holder, and to itself once it is back", async () => {
  const everything = { slots: [0, 1, 2].flatMap((layer) => all.map((e) => [layer, e] as const)) };
  await withCluster({ shards: 2, placement: [everything, everything] }, async (cluster) => {
    const before = await evaluateAll(cluster);
    cluster.killShard(0);
    const during = await evaluateAll(cluster);
    cluster.killShard(1);
    const waiting = evaluateAll(cluster);
    cluster.startShard(0);
    const after = await waiting;
    for (const velocities of [before, during, after]) expectExact(velocities);
    expect(during).toEqual(before);
    expect(after).toEqual(before);
  });
});

test("two routers on the same shards at once give what one gives alone", async () => {
  await withCluster({ shards: 4, placement: PLANNED, routers: 2 }, async (cluster) => {
    const alone = await evaluateAll(cluster);
    expectExact(alone);
    const both = Array.from({ length: 8 }, (_, at) => evaluateAll(cluster, at % 2));
    for (const velocities of await Promise.all(both)) expect(velocities).toEqual(alone);
  });
});

test.each(["killed", "stopped"])(
  "a shard that is %s in the midst of steps changes nothing of what they give",
  async (how) => {
    const everything = { slots: [0, 1, 2].flatMap((layer) => all.map((e) => [layer, e] as const)) };
    await withCluster({ shards: 3, placement: [everything, everything, everything] }, async (cluster) => {
      const before = await evaluateAll(cluster);
      // So many exchanges that their deadline is by what they take, not by the first one's most.
      for (let calm = 0; calm < 6; calm++) await evaluateAll(cluster);
      for (const shard of [0, 1]) {
        const running = Array.from({ length: 4 }, () => evaluateAll(cluster));
        await new Promise((resolve) => setTimeout(resolve, 5));
        if (how === "killed") cluster.killShard(shard);
        else cluster.stopShard(shard);
        for (const velocities of await Promise.all(running)) expect(velocities).toEqual(before);
      }
      for (const shard of [0, 1])
        if (how === "killed") cluster.startShard(shard);
        else cluster.stopShard(shard, false);
      expect(await evaluateAll(cluster)).toEqual(before);
      // One that is late is not waited for until its deadline: hedging.test.ts has more of it.
      expect(await cluster.metrics()).toMatch(
        /^moevie_exchange_(retries_total\{.*\}|hedges_total\{.*"won".*\}) [1-9]/m,
      );
    });
  },
);

/** Of the velocity's scale; the roundings of rows and answers alone give an eighth of it. */
test.each([
  ["bf16", 1e-2],
  ["f16", 2e-3],
] as const)("rows in %s stay within %f of the exact velocity", async (wire, most) => {
  await withCluster({ shards: 2, wire }, async (cluster) => {
    const velocities = await evaluateAll(cluster);
    velocities.forEach((velocity, at) => {
      const wanted = cases[at]?.velocity ?? new Float32Array(0);
      const difference = largestDifference(velocity, wanted) / scaleOf(wanted);
      expect(difference).toBeGreaterThan(0);
      expect(difference).toBeLessThan(most);
    });
  });
});
