// Windows cover a long latent with shares that sum up to one, and blending equal answers gives the answer back.
import { expect, test } from "vitest";
import { blendWindow, cutWindow, latentWindows } from "./windows.ts";

const OPTIONS = { frames: 5, overlap: 2, leadIn: 1, period: 12 };

test("a latent that fits the model is one window with all of the share", () => {
  for (const total of [1, 3, 5]) {
    expect(latentWindows(total, OPTIONS)).toEqual([
      { start: 0, origin: 0, weights: Array.from({ length: total }, () => 1) },
    ]);
  }
});

test("windows overlap as asked, their lead-in has no share, and the last ends with the latent", () => {
  expect(latentWindows(8, OPTIONS)).toEqual([
    { start: 0, origin: 0, weights: [1, 1, 1, 1, 0.5] },
    { start: 3, origin: 3, weights: [0, 0.5, 1, 1, 1] },
  ]);
  expect(latentWindows(9, OPTIONS).map(({ start }) => start)).toEqual([0, 3, 4]);
  expect(latentWindows(61, OPTIONS).at(-1)).toMatchObject({ start: 56, origin: 8 });
});

test.each([
  OPTIONS,
  { frames: 5, overlap: 3, leadIn: 1, period: 1 },
  { frames: 21, overlap: 6, leadIn: 2, period: 1 },
  { frames: 2, overlap: 1, leadIn: 0, period: 3 },
])("the shares of every latent frame sum up to 1 and are of at most two windows: %o", (options) => {
  for (let total = 1; total <= 70; total++) {
    const sums = Array.from({ length: total }, () => 0);
    const owners = Array.from({ length: total }, () => 0);
    const windows = latentWindows(total, options);
    for (const { start, weights, origin } of windows) {
      expect(origin).toBe(start % options.period);
      for (const [index, weight] of weights.entries()) {
        sums[start + index] = (sums[start + index] ?? 0) + weight;
        if (weight > 0) owners[start + index] = (owners[start + index] ?? 0) + 1;
      }
    }
    for (const sum of sums) expect(sum).toBeCloseTo(1, 12);
    expect(Math.max(...owners)).toBeLessThanOrEqual(2);
    for (const { weights } of windows.slice(1))
      expect(weights.slice(0, options.leadIn)).toEqual(Array(options.leadIn).fill(0));
  }
});

test("blending what was cut gives the latent back, in any order of windows", () => {
  const shape = [2, 11, 2, 3] as const;
  const latent = Float32Array.from({ length: 2 * 11 * 6 }, (_, at) => Math.sin(at) * 7);
  const windows = latentWindows(11, OPTIONS);
  const blend = (order: typeof windows): Float32Array => {
    const sum = new Float32Array(latent.length);
    for (const window of order)
      blendWindow(
        sum,
        shape,
        window,
        cutWindow(latent, shape, window).map((v) => v * 1.1),
      );
    return sum;
  };
  const forth = blend(windows);
  expect(blend(windows.toReversed())).toEqual(forth);
  for (const [at, value] of forth.entries()) expect(value).toBeCloseTo((latent[at] ?? 0) * 1.1, 5);
});

test("a window that is the whole latent is not copied", () => {
  const latent = new Float32Array(12);
  expect(cutWindow(latent, [1, 3, 2, 2], latentWindows(3, OPTIONS)[0]!)).toBe(latent);
});

test("options that leave no step forward are refused", () => {
  expect(() => latentWindows(9, { ...OPTIONS, overlap: 5 })).toThrow(RangeError);
  expect(() => latentWindows(9, { ...OPTIONS, leadIn: 2 })).toThrow(RangeError);
});
