// Frames between frames against drawn truth at the high rate: a ball, a bar and a box that cross a striped ground. The same on the starter's
// world is in docs/decisions/frame-interpolation.md.
import { Frame } from "node-av/lib";
import { beforeAll, describe, expect, test } from "vitest";
import { filterChain } from "./filter-chain.ts";
import { PictureFilter } from "./picture-filter.ts";

const SIZE = { width: 144, height: 80 };
const PIXELS = SIZE.width * SIZE.height;
const MODEL_FPS = 8;
const SECONDS = 2;
/** A pixel that changes by more than this between the model's frames is part of what moves. */
const MOVES_LEVELS = 16;

/** Pixels from the left at `seconds`, for what starts at `start`. */
const across = (start: number, speed: number, seconds: number): number => start + speed * seconds;

/** Falls off over one pixel, as in a picture that is not jagged. */
const cover = (distance: number): number => Math.min(Math.max(distance + 0.5, 0), 1);

function drawn(seconds: number): Uint8Array {
  const rgb = new Uint8Array(PIXELS * 3);
  const [ball, bar, box] = [across(15, 40, seconds), across(130, -32, seconds), across(40, 24, seconds)];
  for (let y = 0; y < SIZE.height; y++)
    for (let x = 0; x < SIZE.width; x++) {
      const ground = 110 + 30 * Math.sin(x / 5) * Math.cos(y / 7);
      const inBall = cover(10 - Math.hypot(x - ball, y - 24));
      const inBar = cover(4 - Math.abs(x - bar)) * cover(16 - Math.abs(y - 30));
      const inBox = cover(9 - Math.abs(x - box)) * cover(7 - Math.abs(y - 64));
      let colour = [ground, ground, ground * 0.8];
      for (const [share, over] of [
        [inBall, [230, 60, 40]],
        [inBar, [30, 40, 160]],
        [inBox, [240, 230, 90]],
      ] as const)
        colour = colour.map((level, i) => level * (1 - share) + over[i]! * share);
      rgb.set(colour, (y * SIZE.width + x) * 3);
    }
  return rgb;
}

/** Luma planes of what the picture path makes at `fps` of pictures at `givenFps`. */
async function lumas(pictures: readonly Uint8Array[], givenFps: number, fps: number): Promise<Uint8Array[]> {
  const from = { ...SIZE, fps: givenFps };
  const filter = await PictureFilter.open(from, filterChain(from, { ...SIZE, fps }, 0));
  using frame = new Frame();
  frame.alloc();
  const planes: Uint8Array[] = [];
  const take = async (): Promise<void> => {
    while (await filter.pull(frame)) {
      planes.push(Uint8Array.from(frame.toBuffer().subarray(0, PIXELS)));
      frame.unref();
    }
  };
  try {
    for (const rgb of pictures) {
      await filter.push(rgb);
      await take();
    }
    await filter.end();
    await take();
    return planes;
  } finally {
    filter.close();
  }
}

describe.each([24, 25, 30, 60])("from 8 to %d frames a second", (fps) => {
  const count = SECONDS * fps;
  let truth: Uint8Array[];
  let made: Uint8Array[];
  let model: Uint8Array[];

  beforeAll(async () => {
    truth = await lumas(
      Array.from({ length: count }, (_, at) => drawn(at / fps)),
      fps,
      fps,
    );
    // More than are looked at, as encodeClip goes on with the last one.
    const pictures = Array.from({ length: SECONDS * MODEL_FPS + 4 }, (_, at) => drawn(at / MODEL_FPS));
    made = await lumas(pictures, MODEL_FPS, fps);
    model = await lumas(pictures, MODEL_FPS, MODEL_FPS);
  }, 60_000);

  /** Mean squared distance from the truth where something moves, over the frames that the model has not. */
  function error(frameAt: (at: number, before: Uint8Array, after: Uint8Array, share: number) => Uint8Array): number {
    let [sum, pixels] = [0, 0];
    for (let at = 0; at < count; at++) {
      const time = (at / fps) * MODEL_FPS;
      if (Number.isInteger(time)) continue;
      const [before, after] = [model[Math.floor(time)]!, model[Math.ceil(time)]!];
      const shown = frameAt(at, before, after, time % 1);
      for (const [i, level] of truth[at]!.entries()) {
        if (Math.max(Math.abs(level - before[i]!), Math.abs(level - after[i]!)) <= MOVES_LEVELS) continue;
        sum += (shown[i]! - level) ** 2;
        pixels++;
      }
    }
    return sum / pixels;
  }

  test("what moves is nearer the truth than shown twice, and than blended", () => {
    const interpolated = error((at) => made[at]!);
    const doubled = error((_, before) => before);
    const blended = error((_, before, after, share) =>
      before.map((level, i) => Math.round(level * (1 - share) + after[i]! * share)),
    );
    expect(interpolated).toBeLessThan(doubled / 3);
    expect(interpolated).toBeLessThan(blended / 2);
  });
});
