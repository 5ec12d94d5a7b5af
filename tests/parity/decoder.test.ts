// The decoder's two graphs, streaming with caches, against the cache-free slow reference on tiny random weights.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { openBundle } from "@moevie/bundle";
import { importStarter } from "@moevie/importer";
import { decodeClip } from "./decode-clip.ts";
import { readTensors } from "./safetensors-file.ts";
import { BundleSessions, largestDifference } from "./sessions.ts";
import { slowDecode } from "./slow-decoder.ts";
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
