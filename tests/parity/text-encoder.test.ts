// The text encoder's graph against outputs recorded from transformers' UMT5EncoderModel on a tiny random model.
import { join } from "node:path";
import { beforeAll, expect, test } from "vitest";
import type { InferenceSession } from "onnxruntime-node";
import { openWeightFile, readConfigFile, relativeBucket, textEncoderGraph, textEncoderSizes } from "@moevie/importer";
import { readTensors } from "./safetensors-file.ts";
import { createSession, i64, largestDifference } from "./sessions.ts";

const TOLERANCE = 2e-5;
const folder = join(import.meta.dirname, "text-encoder");
const goldens = readTensors(join(folder, "goldens.safetensors"));
let session: InferenceSession;

beforeAll(async () => {
  const file = join(folder, "model.safetensors");
  const sizes = textEncoderSizes(await readConfigFile(join(folder, "config.json")));
  session = await createSession(
    textEncoderGraph("text-encoder", await openWeightFile(file, file.slice(1)), sizes).encode(),
  );
});

for (const prompt of ["en", "zh", "empty"]) {
  for (const length of [64, 512]) {
    test(`prompt ${prompt} padded to ${length} gives the recorded rows, zeros after its mask`, async () => {
      const input = (name: string) => i64([1, length], goldens.get(`${prompt}.${length}.${name}`)!.data);
      const got = (await session.run({ ids: input("input_ids"), mask: input("attention_mask") }))["rows"]!;
      const want = goldens.get(`${prompt}.${length}.prompt_embeds`)!;
      expect([...got.dims]).toEqual([...want.shape]);
      expect(largestDifference(got.data as Float32Array, want.data)).toBeLessThan(TOLERANCE);
    });
  }
}

test("every distance falls in the recorded bucket", () => {
  const distances = goldens.get("relative_position")!.data;
  const buckets = goldens.get("relative_bucket")!.data;
  const got = Array.from(distances, (distance) => relativeBucket(distance, 32, 128));
  expect(got).toEqual([...buckets]);
});
