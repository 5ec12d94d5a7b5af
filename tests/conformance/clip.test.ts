// What an encoded clip is, read back from the file by code that the decoder does not share: format, tags, counts, colours, motion.
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { encodeClip } from "@moevie/decoder/media";
import { PLAYS_ANYWHERE, probeClip, readFrames } from "../e2e/probe-clip.ts";

const folder = mkdtempSync(join(tmpdir(), "moevie-clip-test-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const MODEL = { width: 144, height: 80, fps: 8 };
type Colour = readonly [red: number, green: number, blue: number];
/** Pixels the box moves a model frame. */
const SPEED = 6;
const BOX = { size: 24, left: 10, top: 28, colour: [230, 200, 40] as Colour };

/** A still ground with, unless `plain`, a box that moves right. */
async function* scene(count: number, ground: Colour, plain = false): AsyncGenerator<Uint8Array, void> {
  for (let frame = 0; frame < count; frame++) {
    const rgb = new Uint8Array(MODEL.width * MODEL.height * 3);
    for (let pixel = 0; pixel < MODEL.width * MODEL.height; pixel++) {
      const x = (pixel % MODEL.width) - BOX.left - SPEED * frame;
      const y = Math.floor(pixel / MODEL.width) - BOX.top;
      const inBox = !plain && x >= 0 && x < BOX.size && y >= 0 && y < BOX.size;
      rgb.set(inBox ? BOX.colour : ground, pixel * 3);
    }
    yield rgb;
  }
}

async function* noise(count: number): AsyncGenerator<Uint8Array, void> {
  let state = 1;
  for (let frame = 0; frame < count; frame++)
    yield Uint8Array.from({ length: MODEL.width * MODEL.height * 3 }, () => {
      state = Math.imul(state, 1664525) + 1013904223;
      return state >>> 24;
    });
}

/** Stripes of sharp edges that stand still, but for 5 levels of swing either way. */
async function* swinging(): AsyncGenerator<Uint8Array, void> {
  let state = 1;
  for (let frame = 0; frame < 17; frame++)
    yield Uint8Array.from({ length: MODEL.width * MODEL.height * 3 }, (_, i) => {
      state = Math.imul(state, 1664525) + 1013904223;
      return ((Math.floor(i / 3) % 24 < 12 ? 70 : 160) + (((state >>> 24) % 11) - 5)) | 0;
    });
}

function mean(levels: Uint8Array): number {
  return levels.reduce((sum, level) => sum + level, 0) / levels.length;
}

async function encode(
  frames: AsyncIterable<Uint8Array>,
  to: { width: number; height: number; fps: number },
  frameCount: number,
  steadyLevels = 10,
): Promise<string> {
  const path = join(folder, `${to.width}x${to.height}-${to.fps}-${frameCount}-${steadyLevels}.mp4`);
  const clip = {
    path,
    from: MODEL,
    to,
    frameCount,
    comment: "made by a test",
    steadyLevels,
    encoder: { device: "cpu", threads: 1 },
    signal: new AbortController().signal,
  };
  let encoded = 0;
  for await (const count of encodeClip(frames, clip)) {
    expect(count).toBeGreaterThanOrEqual(encoded);
    encoded = count;
  }
  expect(encoded).toBe(frameCount);
  return path;
}

describe("a clip", () => {
  test.each([
    [1280, 720, 24, 48],
    [1280, 720, 25, 50],
    [720, 1280, 30, 60],
    [512, 512, 60, 120],
    [256, 256, 8, 16],
    [256, 256, 4, 8],
    [256, 256, 24, 1],
  ])(
    "of %dx%d at %d fps has exactly %d frames of H.264 High that any browser plays",
    async (width, height, fps, frameCount) => {
      const modelFrames = 1 + 4 * Math.ceil(((frameCount / fps) * MODEL.fps - 1) / 4);
      const clip = await probeClip(
        await encode(scene(modelFrames, [60, 120, 150]), { width, height, fps }, frameCount),
      );
      expect(clip).toMatchObject({
        ...PLAYS_ANYWHERE,
        width,
        height,
        fps,
        frameCount,
        comment: "made by a test",
      });
      expect(clip.durationSeconds).toBeCloseTo(frameCount / fps, 3);
    },
  );

  test("stays under its bit rate cap even when it is nothing but noise", async () => {
    const [size, seconds] = [{ width: 640, height: 368, fps: 24 }, 2];
    const path = await encode(noise(17), size, seconds * size.fps);
    const bitsMax = 0.35 * size.width * size.height * size.fps;
    // The buffer may be emptied once besides.
    expect(statSync(path).size * 8).toBeLessThan(bitsMax * (seconds + 2));
  });

  test("can be entered every two seconds", async () => {
    const path = await encode(scene(41, [60, 120, 150]), { width: 256, height: 256, fps: 24 }, 120);
    expect((await probeClip(path)).keyframes).toEqual([0, 48, 96]);
  });

  test.each<[string, Colour]>([
    ["red", [200, 30, 40]],
    ["green", [30, 180, 60]],
    ["blue", [20, 40, 220]],
    ["skin", [224, 172, 140]],
    ["black", [0, 0, 0]],
    ["grey", [128, 128, 128]],
    ["white", [255, 255, 255]],
  ])("shows %s as it was painted, within three levels", async (_, colour) => {
    const path = await encode(scene(9, colour, true), { width: 640, height: 368, fps: 24 }, 24);
    const frames = await readFrames(path, { width: 32, height: 16 });
    expect(frames).toHaveLength(24);
    const worst = Math.max(
      ...frames.flatMap((rgb) => [...rgb].map((value, i) => Math.abs(value - (colour[i % 3] ?? 0)))),
    );
    expect(worst).toBeLessThanOrEqual(3);
  });

  test("stands still where only the decoder swings, and is no less sharp", async () => {
    const size = { width: 288, height: 160, fps: 8 };
    const [steadied, left] = [await encode(swinging(), size, 16), await encode(swinging(), size, 16, 0)];
    const frames = await Promise.all([steadied, left].map((path) => readFrames(path, size)));
    const [after, before] = frames.map((all) => {
      let change = 0;
      for (const [n, rgb] of all.entries())
        if (n > 0) for (const [i, level] of rgb.entries()) change += Math.abs(level - all[n - 1]![i]!);
      return change / (all.length - 1) / all[0]!.length;
    });
    expect(after).toBeLessThan(before! / 3);
    // Dark and bright stripes as far apart as they were drawn.
    const picture = frames[0]![8]!;
    const [dark, bright] = [picture.filter((level) => level < 115), picture.filter((level) => level >= 115)];
    expect(mean(bright) - mean(dark)).toBeGreaterThan(85);
  });

  test("mixes nothing across a scene cut: every frame is of one side", async () => {
    const sides: readonly Colour[] = [
      [200, 60, 40],
      [20, 30, 90],
    ];
    async function* cut(): AsyncGenerator<Uint8Array, void> {
      yield* scene(9, sides[0]!);
      yield* scene(8, sides[1]!);
    }
    const frames = await readFrames(await encode(cut(), { width: 640, height: 368, fps: 24 }, 48), {
      width: 32,
      height: 16,
    });
    // The upper left corner, which the box never comes to.
    const sideOf = (rgb: Uint8Array): number =>
      sides.findIndex((side) => side.every((value, c) => Math.abs(value - rgb[c]!) <= 12));
    const seen = frames.map(sideOf);
    expect(
      seen.every((side) => side >= 0),
      JSON.stringify(frames.map((rgb) => [...rgb.subarray(0, 3)])),
    ).toBe(true);
    expect(seen).toEqual(seen.toSorted((a, b) => a - b));
    expect(new Set(seen).size).toBe(2);
  });

  test("moves evenly: the box is where its time says, between model frames too, and is seen once", async () => {
    const path = await encode(scene(17, [20, 40, 160]), { width: 1280, height: 720, fps: 24 }, 48);
    // The clip is 1280 of the 1296 columns that cover it: 8 are cut off on the left.
    const frames = await readFrames(path, { width: 1280, height: 720 });
    for (const [number, rgb] of frames.entries()) {
      const row = rgb.subarray(360 * 1280 * 3, 361 * 1280 * 3);
      const columns = Array.from({ length: 1280 }, (_, x) => x).filter((x) => (row[x * 3] ?? 0) > 125);
      const left = (BOX.left + (SPEED * number) / 3) * 9 - 8;
      const right = Math.min(1280, left + BOX.size * 9);
      // One model pixel is nine of the clip's.
      expect(Math.abs((columns[0] ?? -1) - left), `left edge of frame ${number}`).toBeLessThanOrEqual(12);
      expect(Math.abs((columns.at(-1) ?? -1) + 1 - right), `right edge of frame ${number}`).toBeLessThanOrEqual(12);
      expect(columns.length).toBe((columns.at(-1) ?? 0) - (columns[0] ?? 0) + 1);
    }
  });
});
