// The upsampler's graph, and the decoder's two, streaming with caches, against the cache-free slow reference on tiny random weights.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { openBundle } from "@moevie/bundle";
import { importStarter } from "@moevie/importer";
import { decodeClip } from "./decode-clip.ts";
import { readTensors } from "./safetensors-file.ts";
import { BundleSessions, f32, largestDifference } from "./sessions.ts";
import { slowDecode, slowUpsample } from "./slow-decoder.ts";
import { seeded, writeTinyModel } from "./tiny.ts";

const TOLERANCE = 3e-5;
const folder = mkdtempSync(join(tmpdir(), "moevie-decoder-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test("one frame of the first latent frame and four of each later one, as the cache-free reference makes them", async () => {
  const { channels } = writeTinyModel(join(folder, "source"), { seed: 5 });
  await importStarter(join(folder, "source"), join(folder, "bundle"));
  const sessions = new BundleSessions(await openBundle(join(folder, "bundle")));
  const { mean, std } = sessions.bundle.manifest.latent;
  const random = seeded(9);
  const latents = Array.from({ length: 3 }, () =>
    Array.from({ length: channels }, () =>
      Array.from({ length: 3 }, () => Array.from({ length: 4 }, () => Math.fround(2 * random()))),
    ),
  );
  const frames = await decodeClip(
    sessions,
    latents.map((latent) => ({ shape: [1, channels, 3, 4], data: Float32Array.from(latent.flat(2)) })),
  );
  const want = slowDecode(
    readTensors(join(folder, "source", "vae", "model.safetensors")),
    { mean, std, blocks: 2, temporal: 4 },
    latents,
  );
  expect(frames).toHaveLength(want.length);
  for (const [index, frame] of frames.entries())
    expect(largestDifference(frame, want[index]!.flat(2))).toBeLessThan(TOLERANCE);
});

test("a latent frame of twice the rows and columns, as the plain loops make it", async () => {
  const { channels } = writeTinyModel(join(folder, "fine-source"), { seed: 6, upsampler: true });
  await importStarter(join(folder, "fine-source"), join(folder, "fine-bundle"));
  const sessions = new BundleSessions(await openBundle(join(folder, "fine-bundle")));
  expect(sessions.bundle.manifest.latent.upsampling).toBe(2);
  const random = seeded(10);
  const z = Array.from({ length: channels }, () =>
    Array.from({ length: 3 }, () => Array.from({ length: 5 }, () => Math.fround(2 * random()))),
  );
  const { fine } = await sessions.run("latent-upsampler", {
    z: f32([1, channels, 3, 5], Float32Array.from(z.flat(2))),
  });
  const weights = readTensors(join(folder, "fine-source", "upsampler", "model.safetensors"));
  const want = slowUpsample(weights, { coarse: 2, fine: 1 }, z);
  expect(fine!.dims).toEqual([1, channels, 6, 10]);
  expect(largestDifference(fine!.data as Float32Array, want.flat(2))).toBeLessThan(TOLERANCE);
});

test("an upsampler of other channels than the decoder's is refused by name", async () => {
  const source = join(folder, "odd-source");
  writeTinyModel(source, { seed: 7, upsampler: true });
  const file = join(source, "upsampler", "config.json");
  writeFileSync(file, readFileSync(file, "utf8").replace(/"latent_channels": \d+/, '"latent_channels": 3'));
  await expect(importStarter(source, join(folder, "odd-bundle"))).rejects.toThrow(/latent_channels is 3, expected/);
});
