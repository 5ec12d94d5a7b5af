// What colour correction mends and what it leaves alone, on drawn clips whose true colours are known.
import { describe, expect, test } from "vitest";
import { cellMeans } from "./cell-means.ts";
import { correctColour, type ColourReport } from "./correct-colour.ts";

const GRID = { width: 144, height: 80, perCell: 8 };
const STRIDE = 4;
const PICTURES = 17;

/** Between -1 and 1; the same for the same `i`. */
const evenly = (i: number): number => (Math.abs(Math.sin(i * 12.9898 + 4.1) * 43758.5453) % 1) * 2 - 1;

type Colour = readonly [number, number, number];
type Change = (level: number, colour: number, frame: number) => number;

/** A sky over a striped ground and a ball that crosses them; `warmth` as of a sunset. */
function pixel(x: number, y: number, frame: number, warmth: number): Colour {
  const ball = (x - 20 - 5 * frame) ** 2 + (y - 45) ** 2 < 12 ** 2;
  if (ball) return [205, 60, 50];
  if (y < 40) return [90 + y + warmth, 130 + y, 210 - y - warmth];
  const stripe = (x + 2 * y) % 24 < 12 ? 18 : 0;
  return [120 + stripe + warmth / 2, 105 + stripe, 70 + stripe];
}

function picture(frame: number, warmth = 0): Uint8Array {
  const rgb = new Uint8Array(GRID.width * GRID.height * 3);
  for (let y = 0; y < GRID.height; y++)
    for (let x = 0; x < GRID.width; x++) rgb.set(pixel(x, y, frame, warmth), (y * GRID.width + x) * 3);
  return rgb;
}

const clip = (count = PICTURES, warmth = 0): Uint8Array[] =>
  Array.from({ length: count }, (_, at) => picture(at, warmth));

const changed = (frames: readonly Uint8Array[], change: Change): Uint8Array[] =>
  frames.map(
    (rgb, frame) => new Uint8Array(Uint8ClampedArray.from(rgb, (level, i) => change(level, i % 3, frame)).buffer),
  );

async function* streamed(frames: readonly Uint8Array[]): AsyncGenerator<Uint8Array, void> {
  for (const rgb of frames) yield rgb.slice();
}

/** `decoded` corrected, where the latent means what `truth` shows, missing each cell by about 8 levels as real ones do. */
async function corrected(
  decoded: readonly Uint8Array[],
  truth: readonly Uint8Array[],
): Promise<{ frames: Uint8Array[]; report: ColourReport }> {
  const latentFrames = 1 + Math.ceil((truth.length - 1) / STRIDE);
  const meant = (t: number): Float32Array =>
    cellMeans(truth[Math.min(t * STRIDE, truth.length - 1)]!, GRID).map((level, i) => level + 14 * evenly(i));
  const report: ColourReport = { castLevels: 0, flickerFrames: 0 };
  const frames: Uint8Array[] = [];
  const source = { grid: GRID, temporalStride: STRIDE, latentFrames, meant };
  for await (const rgb of correctColour(streamed(decoded), source, report)) frames.push(rgb);
  return { frames, report };
}

function meanDistance(a: readonly Uint8Array[], b: readonly Uint8Array[]): number {
  let sum = 0;
  for (const [frame, rgb] of a.entries())
    for (const [i, level] of rgb.entries()) sum += Math.abs(level - b[frame]![i]!);
  return sum / (a.length * a[0]!.length);
}

/** Mean change of the sky's first rows from frame to frame, where nothing moves. */
function skyChange(frames: readonly Uint8Array[]): number {
  const sky = frames.map((rgb) => rgb.subarray(0, GRID.width * 20 * 3));
  return meanDistance(sky.slice(1), sky.slice(0, -1));
}

/** The same of two scenes, each by itself. */
const sides = (all: readonly Uint8Array[]): number => (skyChange(all.slice(0, 9)) + skyChange(all.slice(9))) / 2;

const marked = (count: number): Uint8Array[] =>
  Array.from({ length: count }, (_, at) => new Uint8Array(GRID.width * GRID.height * 3).fill(40 + at));

describe("a clean clip is left alone, byte for byte", () => {
  test.each([
    ["a day", clip()],
    ["a sunset, warm as the latent means it", clip(PICTURES, 60)],
    ["a clip of one picture", clip(1)],
    ["a fade to dark", changed(clip(), (level, _, frame) => level * (1 - frame / 40))],
    ["a cut to a darker scene", [...clip(8), ...changed(clip(9, 90), (level) => level * 0.6)]],
  ])("%s", async (_, frames) => {
    const { frames: after, report } = await corrected(frames, frames);
    expect(report).toEqual({ castLevels: 0, flickerFrames: 0 });
    expect(after).toEqual(frames);
  });

  test("rain is no flicker", async () => {
    const rain = clip(6).map((rgb, frame) =>
      rgb.map((level, i) => level + 14 * evenly(Math.floor(i / 24) + frame * 7919)),
    );
    expect((await corrected(rain, rain)).report).toEqual({ castLevels: 0, flickerFrames: 0 });
  });
});

describe("a cast is taken out", () => {
  test.each<[string, Change]>([
    ["a tint of red", (level, colour) => level * (colour === 0 ? 1.12 : 0.9) + (colour === 0 ? 8 : 0)],
    ["a veil of blue", (level, colour) => level + (colour === 2 ? 22 : -6)],
    ["half the contrast", (level) => 0.55 * level + 60],
    ["too much contrast", (level) => 1.25 * (level - 128) + 128],
  ])("%s", async (_, change) => {
    const truth = clip();
    const spoiled = changed(truth, change);
    const { frames, report } = await corrected(spoiled, truth);
    expect(report.castLevels).toBeGreaterThan(8);
    expect(meanDistance(frames, truth)).toBeLessThan(Math.min(3, meanDistance(spoiled, truth) / 3));
  });

  test("by the same table for the whole clip, so still places stay still", async () => {
    const truth = clip();
    const { frames } = await corrected(
      changed(truth, (level, colour) => level + colour * 12 - 12),
      truth,
    );
    expect(skyChange(frames)).toBe(0);
  });
});

describe("flicker is taken out", () => {
  test.each<[string, (frame: number) => number]>([
    ["every other frame", (frame) => (frame % 2 === 0 ? 1.05 : 0.95)],
    ["every fourth frame, as key frames of a latent", (frame) => (frame % 4 === 0 ? 0.92 : 1)],
    ["one frame", (frame) => (frame === 7 ? 0.8 : 1)],
  ])("%s", async (_, brightness) => {
    const truth = clip(33);
    const spoiled = changed(truth, (level, _colour, frame) => level * brightness(frame));
    const { frames, report } = await corrected(spoiled, spoiled);
    expect(report.flickerFrames).toBeGreaterThan(0);
    expect(skyChange(frames)).toBeLessThan(skyChange(spoiled) / 3);
  });

  test("on both sides of a cut, and not across it", async () => {
    const scenes = [...clip(9), ...changed(clip(9, 90), (level) => 255 - level)];
    const spoiled = changed(scenes, (level, _, frame) => level * (frame % 2 === 0 ? 1 : 0.94));
    const { frames } = await corrected(spoiled, scenes);
    expect(sides(frames)).toBeLessThan(sides(spoiled) / 3);
    expect(meanDistance(frames, scenes)).toBeLessThan(meanDistance(spoiled, scenes) + 1);
  });
});

test("every picture comes out once, in order, however many there are", async () => {
  for (const count of [0, 1, 5, 9, 13, 81]) {
    const frames = marked(count);
    const { frames: after } = await corrected(frames, count === 0 ? marked(1) : frames);
    expect(after.map((rgb) => rgb[0])).toEqual(frames.map((rgb) => rgb[0]));
  }
});
