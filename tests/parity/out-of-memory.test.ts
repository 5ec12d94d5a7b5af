// What does not fit in memory: refused before it begins where its size tells it, and where it runs out all the same it fails alone, with the
// bytes it wanted, and the next smaller one passes.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openBundle } from "@moevie/bundle";
import { GraphBuilder, importModel, importStarter } from "@moevie/importer";
import { OnnxThread, type TensorViews } from "@moevie/runtime";
import { afterAll, expect, test } from "vitest";
import { DenoiseCluster } from "./denoise-cluster.ts";
import type { Dense } from "./safetensors-file.ts";
import { seeded, writeTinyModel } from "./tiny.ts";

const folder = mkdtempSync(join(tmpdir(), "moevie-memory-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** As many ones as it is asked for. */
function onesGraph(): Uint8Array {
  const g = new GraphBuilder("ones");
  g.output("y", g.op("Expand", [g.f32(1), g.input("dims", "i64", [2])]), "f32", ["a", "b"]);
  return g.encode();
}

const dims = (a: bigint, b: bigint): TensorViews => ({
  dims: { type: "int64", dims: [2], data: BigInt64Array.of(a, b) },
});
const shared = (a: bigint, b: bigint): TensorViews => {
  const data = new BigInt64Array(new SharedArrayBuffer(16));
  data.set([a, b]);
  return { dims: { type: "int64", dims: [2], data } };
};

test("a run that runs out of memory says how many bytes it wanted, and the graph's session goes on, planned or not", async () => {
  const thread = OnnxThread.start({ name: "ones", device: "cpu", intraOpThreads: 1 });
  try {
    await thread.load("ones", onesGraph());
    const tooLarge = { reason: "OUT_OF_MEMORY", message: expect.stringMatching(/\d{12,} bytes/) as string };
    await expect(thread.run("ones", dims(1_000_000n, 1_000_000n))).rejects.toMatchObject(tooLarge);
    expect((await thread.run("ones", dims(2n, 3n)))["y"]?.data).toEqual(new Float32Array(6).fill(1));
    await expect(thread.plan("ones", shared(1_000_000n, 1_000_000n)).run()).rejects.toMatchObject(tooLarge);
    const plan = thread.plan("ones", shared(3n, 4n));
    await plan.run();
    expect(Array.from(plan.outputs["y"]?.data as Float32Array)).toEqual(Array.from({ length: 12 }, () => 1));
  } finally {
    await thread.close();
  }
});

test("an evaluation that could not fit is refused with its bytes; those before, beside and after it pass", async () => {
  // Wide enough that the largest latent would take some hundred GiB.
  writeTinyModel(join(folder, "source"), { layers: 1, experts: 4, frames: 9, width: 768 });
  await importStarter(join(folder, "source"), join(folder, "bundle"));
  const bundle = await openBundle(join(folder, "bundle"));
  const random = seeded(3);
  const dense = (shape: number[]): Dense => ({
    shape,
    data: Float32Array.from({ length: shape.reduce((a, b) => a * b) }, () => random()),
  });
  const { latent, text } = bundle.manifest;
  const rows = dense([text.maxTokens, text.width]);
  const small = dense([latent.channels, 1, 8, 8]);
  const large = dense([latent.channels, 1, 2048, 2048]);
  const cluster = await DenoiseCluster.start({ bundleFolder: join(folder, "bundle"), shards: 1 });
  try {
    const { velocity } = await cluster.denoise(bundle, small, 500, rows);
    const failing = cluster.denoise(bundle, large, 500, rows);
    const beside = cluster.denoise(bundle, small, 500, rows);
    await expect(failing).rejects.toMatchObject({
      reason: "OUT_OF_MEMORY",
      message: expect.stringMatching(/1048576 rows takes about 206158430208 bytes/) as string,
    });
    expect((await beside).velocity).toEqual(velocity);
    expect((await cluster.denoise(bundle, small, 500, rows)).velocity).toEqual(velocity);
  } finally {
    await cluster.close();
  }
});

test("a whole denoiser's evaluation that could not fit is refused by its shard with its bytes; those before and after it pass", async () => {
  const bundleFolder = join(folder, "wan-bundle");
  await importModel(join(import.meta.dirname, "wan/model"), bundleFolder);
  const file = join(bundleFolder, "manifest.json");
  const manifest = JSON.parse(readFileSync(file, "utf8")) as { denoiser: object };
  expect(manifest.denoiser).toMatchObject({ width: 24, innerWidth: 32 });
  // As if the model were so wide that this latent takes more than machines have.
  const denoiser = { ...manifest.denoiser, width: 65_536, innerWidth: 65_536 };
  writeFileSync(file, JSON.stringify({ ...manifest, denoiser }));
  const bundle = await openBundle(bundleFolder);
  const random = seeded(4);
  const dense = (shape: number[]): Dense => ({
    shape,
    data: Float32Array.from({ length: shape.reduce((a, b) => a * b) }, () => random()),
  });
  const { latent, text } = bundle.manifest;
  const rows = dense([text.maxTokens, text.width]);
  const [small, large] = [dense([latent.channels, 1, 2, 2]), dense([latent.channels, 8, 256, 256])];
  const cluster = await DenoiseCluster.start({ bundleFolder, shards: 2 });
  try {
    const { velocity } = await cluster.denoise(bundle, small, 500, rows);
    await expect(cluster.denoise(bundle, large, 500, rows)).rejects.toMatchObject({
      reason: "OUT_OF_MEMORY",
      message: expect.stringMatching(/131072 tokens takes about 352187318272 bytes/) as string,
    });
    expect((await cluster.denoise(bundle, small, 500, rows)).velocity).toEqual(velocity);
  } finally {
    await cluster.close();
  }
});
