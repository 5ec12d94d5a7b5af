// Wan's auto-encoder, a chunk at a time with caches, against what diffusers' gave.
import { join } from "node:path";
import type { InferenceSession, Tensor } from "onnxruntime-node";
import { beforeAll, expect, test } from "vitest";
import { openWeightFolder, readConfigFile, wanDecoderGraph, wanEncoderGraph, wanVaeSizes } from "@moevie/importer";
import { readTensors, type Dense } from "./safetensors-file.ts";
import { carriedCaches, createSession, f32, largestDifference, type Feeds } from "./sessions.ts";

const HERE = join(import.meta.dirname, "wan");
const TOLERANCE = 3e-5;
const CHANNELS = 16;
const golden = readTensors(join(HERE, "goldens/vae.safetensors"));
type Chunks = { readonly first: InferenceSession; readonly next: InferenceSession };
let decoder: Chunks;
let encoder: Chunks;

async function both(graph: (chunk: "first" | "next") => { encode(): Uint8Array }): Promise<Chunks> {
  return { first: await createSession(graph("first").encode()), next: await createSession(graph("next").encode()) };
}

beforeAll(async () => {
  const folder = join(HERE, "model/vae");
  const weights = await openWeightFolder(folder, folder.slice(1), "diffusion_pytorch_model");
  const sizes = wanVaeSizes(await readConfigFile(join(folder, "config.json")));
  decoder = await both((chunk) => wanDecoderGraph(weights, sizes, chunk));
  encoder = await both((chunk) => wanEncoderGraph(weights, sizes, chunk));
  weights.settle();
});

/** Frames `from` to `to` of clip `item` of a [N, C, T, H, W], as [frames, C, H, W] or, of one frame, [1, C, H, W]. */
function framesOf({ shape, data }: Dense, from: number, to: number, item = 0): Tensor {
  const [, channels, frames, height, width] = shape as [number, number, number, number, number];
  const area = height * width;
  const out = new Float32Array((to - from) * channels * area);
  for (let t = from; t < to; t++)
    for (let c = 0; c < channels; c++) {
      const at = ((item * channels + c) * frames + t) * area;
      out.set(data.subarray(at, at + area), ((t - from) * channels + c) * area);
    }
  return f32([to - from, channels, height, width], out);
}

/** Frames of each chunk of a latent that is not normalised by the golden's but by the graph's own mean and spread. */
async function decode({ first, next }: Chunks, latent: Dense, item = 0): Promise<Tensor[]> {
  const chunks: Tensor[] = [];
  let caches: Feeds = {};
  for (let t = 0; t < latent.shape[2]!; t++) {
    const session = t === 0 ? first : next;
    const outputs = (await session.run({ z: framesOf(latent, t, t + 1, item), ...caches })) as Feeds;
    chunks.push(outputs[t === 0 ? "frame" : "frames"]!);
    caches = carriedCaches(outputs);
  }
  return chunks;
}

/** What was recorded after clamping is compared with what clamping makes of ours. */
async function expectFrames(chunks: readonly Tensor[], wanted: Dense, item = 0, isClamped = false): Promise<void> {
  let at = 0;
  for (const chunk of chunks) {
    const count = chunk.dims[0]!;
    const want = framesOf(wanted, at, at + count, item).data as Float32Array;
    const made = chunk.data as Float32Array;
    const shown = isClamped ? made.map((value) => Math.min(1, Math.max(-1, value))) : made;
    expect(largestDifference(shown, want)).toBeLessThan(TOLERANCE);
    at += count;
  }
  expect(at).toBe(wanted.shape[2]);
}

test.each([1, 2, 3])("%d latent frames give diffusers' pictures", async (frames) => {
  const latent = golden.get(`decode.t${frames}.latent`)!;
  await expectFrames(await decode(decoder, latent), golden.get(`decode.t${frames}.frames_unclamped`)!);
});

test("two clips in turn keep their pasts apart", async () => {
  const denormalised = golden.get("decode.batch.latent_denormalised")!;
  const [mean, std] = await readConfigFile(join(HERE, "model/vae/config.json")).then((config) => [
    config.numbers("latents_mean", CHANNELS),
    config.numbers("latents_std", CHANNELS),
  ]);
  const perChannel = denormalised.data.length / denormalised.shape[0]! / CHANNELS;
  const data = denormalised.data.map((value, i) => {
    const channel = Math.floor(i / perChannel) % CHANNELS;
    return (value - mean![channel]!) / std![channel]!;
  });
  for (const item of [0, 1])
    await expectFrames(
      await decode(decoder, { ...denormalised, data }, item),
      golden.get("decode.batch.frames")!,
      item,
      true,
    );
});

test.each([1, 5, 9])("%d pictures give diffusers' latent", async (frames) => {
  const clip = golden.get("encode.clip")!;
  const normalised = golden.get(`encode.f${frames}.mean_normalised`)!;
  let caches: Feeds = {};
  for (let t = 0; t < normalised.shape[2]!; t++) {
    const session = t === 0 ? encoder.first : encoder.next;
    const pictures = t === 0 ? framesOf(clip, 0, 1) : framesOf(clip, 4 * t - 3, 4 * t + 1);
    const outputs = (await session.run({ frames: pictures, ...caches })) as Feeds;
    for (const [output, name] of [
      ["mean", "mean"],
      ["logvar", "logvar"],
      ["z", "mean_normalised"],
    ] as const) {
      const want = framesOf(golden.get(`encode.f${frames}.${name}`)!, t, t + 1).data as Float32Array;
      expect(largestDifference(outputs[output]!.data as Float32Array, want), output).toBeLessThan(TOLERANCE);
    }
    caches = carriedCaches(outputs);
  }
});
