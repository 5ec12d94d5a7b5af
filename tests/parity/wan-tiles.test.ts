// Pictures decoded in overlapping tiles by a decoder process, against diffusers' tiled decode of the same latent.
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openBundle, type Bundle } from "@moevie/bundle";
import { importModel } from "@moevie/importer";
import { DecoderProcess } from "../conformance/decoder-process.ts";
import { readTensors } from "./safetensors-file.ts";
import { largestDifference } from "./sessions.ts";

const HERE = join(import.meta.dirname, "wan");
/** Of frames from 0 to 1; the recorded ones are from -1 to 1. */
const TOLERANCE = 3e-5 / 2;
const scratch = mkdtempSync(join(tmpdir(), "moevie-wan-tiles-"));
const golden = readTensors(join(HERE, "goldens/vae_tiled.safetensors"));
let bundle: Bundle;

beforeAll(async () => {
  await importModel(join(HERE, "model"), join(scratch, "bundle"));
  bundle = await openBundle(join(scratch, "bundle"));
  mkdirSync(join(scratch, "reference"));
});
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

test("tiles of 32 pixels, 24 apart, become diffusers' pictures", async () => {
  const latent = golden.get("latent")!;
  const wanted = golden.get("frames")!;
  const [, , frameCount, height, width] = wanted.shape as [number, number, number, number, number];
  const decoder = await DecoderProcess.start(join(scratch, "bundle"), join(scratch, "run"), {
    MOEVIE_DECODE_TILE: "32",
    MOEVIE_REFERENCE_DIR: join(scratch, "reference"),
  });
  try {
    const head = {
      bundleDigest: bundle.digest,
      latent: { elementType: "ELEMENT_TYPE_F32" as const, shape: latent.shape.slice(1) },
      width,
      height,
      fps: 16,
      frameCount,
      comment: "",
      colorCorrection: false,
      saveFrames: "tiled.safetensors",
    };
    await decoder.decode(head, Buffer.from(latent.data.buffer));
  } finally {
    await decoder.close();
  }
  const made = readTensors(join(scratch, "reference/tiled.safetensors")).get("frames")!;
  const planes = Float32Array.from(wanted.data, (_, i) => {
    const [colour, pixel] = [i % 3, Math.floor(i / 3)];
    const [frame, at] = [Math.floor(pixel / (height * width)), pixel % (height * width)];
    return (wanted.data[(colour * frameCount + frame) * height * width + at]! + 1) / 2;
  });
  expect(made.shape).toEqual([frameCount, height, width, 3]);
  expect(largestDifference(made.data, planes)).toBeLessThan(TOLERANCE);
});
