// Colour correction through the whole decoder: the starter model's, and the same one with weights that tint. What the stage itself does is in
// packages/decoder/src/colour.
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openBundle } from "@moevie/bundle";
import type { DecodeHead } from "@moevie/contracts";
import { importStarter } from "@moevie/importer";
import { DecoderProcess, type Answer } from "./decoder-process.ts";
import { readFrames } from "../e2e/probe-clip.ts";
import { readTensors, writeTensors } from "../parity/safetensors-file.ts";

const starter = join(import.meta.dirname, "../../packages/starter-model");
const folder = mkdtempSync(join(tmpdir(), "moevie-colour-"));
const FRAMES = 5;
const SIZE = { width: 288, height: 160 };
/** Added to red, green and blue by the weights that tint, in [-1, 1]. */
const TINT = [0.2, 0.02, -0.16] as const;

interface Clip {
  readonly facts: Answer["facts"];
  /** Mean levels of red, green and blue. */
  readonly means: readonly number[];
}
const clips: Record<string, Clip> = {};

/** The starter's weights with steadying left out, so that what differs is the colours alone. */
function unsteadied(name: string): string {
  const weights = join(folder, `weights-${name}`);
  cpSync(join(starter, "weights"), weights, { recursive: true });
  const index = join(weights, "model_index.json");
  writeFileSync(index, JSON.stringify({ ...JSON.parse(readFileSync(index, "utf8")), steady_levels: 0 }));
  return weights;
}

/** With a last layer that tints; each colour has a bias for each of the pixels it becomes. */
function tintedWeights(): string {
  const weights = unsteadied("tinted");
  const file = join(weights, "vae/model.safetensors");
  const tensors = readTensors(file);
  const { shape, data } = tensors.get("out.bias")!;
  const perColour = data.length / TINT.length;
  tensors.set("out.bias", { shape, data: data.map((bias, i) => bias + TINT[Math.floor(i / perColour)]!) });
  writeTensors(file, tensors);
  return weights;
}

async function clipOf(decoder: DecoderProcess, head: DecodeHead, latent: Buffer, name: string): Promise<void> {
  const { facts, mp4 } = await decoder.decode(head, latent);
  const path = join(folder, `${name}.mp4`);
  writeFileSync(path, mp4);
  const sums = [0, 0, 0];
  let pixels = 0;
  for (const rgb of await readFrames(path, SIZE)) {
    for (let i = 0; i < rgb.length; i++) sums[i % 3]! += rgb[i]!;
    pixels += rgb.length / 3;
  }
  clips[name] = { facts, means: sums.map((sum) => sum / pixels) };
}

beforeAll(async () => {
  const { shape, data } = readTensors(join(starter, "parity/decoder.safetensors")).get("latents")!;
  for (const [name, weights] of [
    ["sound", unsteadied("sound")],
    ["tinted", tintedWeights()],
  ] as const) {
    const bundle = join(folder, `bundle-${name}`);
    await importStarter(weights, bundle);
    const { digest } = await openBundle(bundle);
    const decoder = await DecoderProcess.start(bundle, join(folder, `run-${name}`));
    const asked = { ...SIZE, fps: 8, frameCount: FRAMES, comment: "", saveFrames: "" };
    const latent = { elementType: "ELEMENT_TYPE_F32" as const, shape: shape.slice(1) };
    const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
    for (const colorCorrection of [true, false]) {
      const head = { bundleDigest: digest, latent, ...asked, colorCorrection };
      await clipOf(decoder, head, bytes, `${name}${colorCorrection ? "" : ", as decoded"}`);
    }
    await decoder.close();
  }
}, 120_000);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const shift = (name: string, from: string): number[] =>
  clips[name]!.means.map((mean, colour) => mean - clips[from]!.means[colour]!);

test("the starter's own clip is the same file with and without", () => {
  expect(clips["sound"]!.facts?.color).toEqual({ castLevels: 0, flickerFrames: 0 });
  expect(clips["sound"]!.facts?.sha256).toBe(clips["sound, as decoded"]!.facts?.sha256);
});

test("a decoder that tints is mended, and shows its tint when told not to", () => {
  const [red, , blue] = shift("tinted, as decoded", "sound, as decoded");
  expect(red).toBeGreaterThan(12);
  expect(blue).toBeLessThan(-8);
  expect(clips["tinted, as decoded"]!.facts?.color ?? undefined).toBeUndefined();
  expect(clips["tinted"]!.facts?.color?.castLevels).toBeGreaterThan(10);
  for (const left of shift("tinted", "sound")) expect(Math.abs(left)).toBeLessThan(3);
});
