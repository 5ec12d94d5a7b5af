// The starter model as committed: its weights through importer and graphs give the numbers PyTorch recorded for them.
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openBundle } from "@moevie/bundle";
import { importStarter } from "@moevie/importer";
import { decodeClip } from "./decode-clip.ts";
import { readTensors, type Dense } from "./safetensors-file.ts";
import { BundleSessions, f32, i64, largestDifference, runMonolith, runPieces, scaleOf } from "./sessions.ts";
import { tokenDenoiser } from "../support/token-denoiser.ts";

const TEXT = 2e-5;
const DENOISER = 1.5e-4;
const DECODER = 3e-5;
/** Choices decided by less than this may fall either way in two correct implementations. */
const MARGIN = 1e-5;

const starter = join(import.meta.dirname, "../../packages/starter-model");
const folder = mkdtempSync(join(tmpdir(), "moevie-starter-"));
const recorded = (name: string): Map<string, Dense> => readTensors(join(starter, "parity", `${name}.safetensors`));
let sessions: BundleSessions;

beforeAll(async () => {
  await importStarter(join(starter, "weights"), join(folder, "bundle"));
  sessions = new BundleSessions(await openBundle(join(folder, "bundle"), { verify: true }));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test("prompts in two languages give the recorded context rows, and each alone what it gives in a batch", async () => {
  const want = recorded("text");
  const ids = want.get("ids")!;
  const context = want.get("context")!;
  const [prompts, length] = ids.shape as [number, number];
  const [, rowsMax, width] = context.shape as [number, number, number];
  for (let prompt = 0; prompt < prompts; prompt++) {
    const own = ids.data.subarray(prompt * length, (prompt + 1) * length);
    const feeds = {
      ids: i64([1, length], own),
      mask: i64(
        [1, length],
        Array.from(own, (id) => (id === 0 ? 0 : 1)),
      ),
    };
    const rows = new Float32Array(rowsMax * width);
    rows.set((await sessions.run("text-encoder", feeds))["rows"]!.data as Float32Array);
    expect(
      largestDifference(rows, context.data.subarray(prompt * rows.length, (prompt + 1) * rows.length)),
    ).toBeLessThan(TEXT);
  }
});

/** Rows whose recorded experts differ, but for those decided by less than the margin. */
function wrongChoices(
  ids: Int32Array,
  weights: Float32Array,
  want: { ids: Float32Array; weights: Float32Array },
  topK: number,
): number[] {
  const wrong: number[] = [];
  for (let row = 0; row * topK < ids.length; row++) {
    const at = row * topK;
    const same = ids.subarray(at, at + topK).every((id, i) => id === want.ids[at + i]);
    const near = Math.abs(weights[at + topK - 2]! - weights[at + topK - 1]!) < MARGIN;
    if (!same && !near) wrong.push(row);
  }
  return wrong;
}

for (const name of ["0", "1", "2", "draft"]) {
  const graphs = name === "draft" ? "draft." : "";
  test(`case ${name}: velocity and every block's experts are the recorded ones, by pieces and by the monolith`, async () => {
    const want = recorded("transformer");
    const get = (key: string): Dense => want.get(`${name}.${key}`)!;
    const { layers, topK } = tokenDenoiser(sessions.bundle);
    for (const run of [runPieces, runMonolith]) {
      const got = await run(
        sessions,
        get("latent"),
        get("timestep").data,
        get("context"),
        want.get(`${name}.origin`)?.data[0],
        graphs,
      );
      const velocity = got.velocity.data as Float32Array;
      for (let layer = 0; layer < layers; layer++) {
        const ids = got.ids[layer]!.data as Int32Array;
        const weights = got.weights[layer]!.data as Float32Array;
        const recordedChoice = {
          ids: get(`block.${layer}.gate_ids`).data,
          weights: get(`block.${layer}.gate_weights`).data,
        };
        expect(wrongChoices(ids, weights, recordedChoice, topK)).toEqual([]);
        expect(largestDifference(weights, recordedChoice.weights)).toBeLessThan(DENOISER);
      }
      expect(largestDifference(velocity, get("velocity").data)).toBeLessThan(
        DENOISER * Math.max(1, scaleOf(get("velocity").data)),
      );
    }
  });
}

test("the decoder's first and next frames are the recorded ones", async () => {
  const want = recorded("decoder");
  const { shape, data } = want.get("latents")!;
  const [, channels, count, height, width] = shape as [number, number, number, number, number];
  const area = height * width;
  const latents = Array.from({ length: count }, (_, t) => {
    const frame = new Float32Array(channels * area);
    for (let c = 0; c < channels; c++)
      frame.set(data.subarray((c * count + t) * area, (c * count + t + 1) * area), c * area);
    return { shape: [1, channels, height, width], data: frame };
  });
  const frames = await decodeClip(sessions, latents);
  const all = Float32Array.from([...want.get("first")!.data, ...want.get("next")!.data]);
  expect(frames).toHaveLength(5);
  for (const [index, frame] of frames.entries()) {
    expect(largestDifference(frame, all.subarray(index * frame.length, (index + 1) * frame.length))).toBeLessThan(
      DECODER,
    );
  }
});

test("the upsampler makes of a latent frame the recorded finer one", async () => {
  const want = recorded("decoder");
  const { shape, data } = want.get("latents")!;
  const [, channels, count, height, width] = shape as [number, number, number, number, number];
  const area = height * width;
  const frame = Float32Array.from(
    { length: channels * area },
    (_, i) => data[Math.floor(i / area) * count * area + (i % area)]!,
  );
  const { fine } = await sessions.run("latent-upsampler", { z: f32([1, channels, height, width], frame) });
  expect(largestDifference(fine!.data as Float32Array, want.get("fine")!.data)).toBeLessThan(DECODER);
});

test("the files are those the model's own list names", () => {
  const list = JSON.parse(readFileSync(join(starter, "weights", "manifest.json"), "utf8")) as {
    files: { path: string; size: number; sha256: string }[];
  };
  const listed = new Map(list.files.map((file) => [`weights/${file.path}`, file]));
  for (const { path, bytes, sha256 } of sessions.bundle.manifest.files) {
    if (path.startsWith("weights/")) expect(listed.get(path)).toMatchObject({ size: bytes, sha256 });
  }
});
