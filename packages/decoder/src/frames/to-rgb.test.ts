// Holds the conversion from planes to bytes.
import { expect, test } from "vitest";
import { toRgb } from "./to-rgb.ts";

test("planes become interleaved bytes, rounded and clamped", () => {
  const planes = new Float32Array([9, 9, -1, 1, 0, -2, 2, Number.NaN]);
  expect([...toRgb(planes, 2, 2, 1)]).toEqual([0, 128, 255, 255, 0, 0]);
});
