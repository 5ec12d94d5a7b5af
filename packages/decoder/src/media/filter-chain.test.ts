// Holds the sizes and the choice of rate filter, without running FFmpeg.
import { assert, integer, property } from "fast-check";
import { describe, expect, test } from "vitest";
import { coverSize, filterChain } from "./filter-chain.ts";

const model = { width: 144, height: 80, fps: 8 };

describe("the picture path", () => {
  test("covers the asked size with even sides and keeps the aspect to a pixel pair", () => {
    const side = integer({ min: 16, max: 120 }).map((n) => n * 16);
    assert(
      property(side, side, (width, height) => {
        const cover = coverSize(model, { width, height, fps: 24 });
        expect(cover.width).toBeGreaterThanOrEqual(width);
        expect(cover.height).toBeGreaterThanOrEqual(height);
        expect([cover.width % 2, cover.height % 2]).toEqual([0, 0]);
        expect(Math.abs(cover.width - (cover.height * model.width) / model.height)).toBeLessThanOrEqual(
          (2 * model.width) / model.height + 2,
        );
      }),
    );
  });

  test("makes frames between frames only when more are asked than the model makes", () => {
    expect(filterChain(model, { width: 256, height: 256, fps: 8 }, 0)).not.toMatch(/fps=/);
    expect(filterChain(model, { width: 256, height: 256, fps: 4 }, 0)).toContain(",fps=4,");
    expect(filterChain(model, { width: 256, height: 256, fps: 24 }, 0)).toContain("minterpolate=fps=24");
    expect(filterChain({ width: 16, height: 16, fps: 8 }, { width: 256, height: 256, fps: 24 }, 0)).toContain(
      "framerate=fps=24",
    );
  });
});

test("still places are steadied before frames are made between frames, and only where the model asks for it", () => {
  const to = { width: 256, height: 256, fps: 24 };
  expect(filterChain(model, to, 0)).not.toContain("atadenoise");
  expect(filterChain(model, to, 10)).toMatch(/atadenoise=0a=0\.0392:0b=0\.0784.*minterpolate/);
});
