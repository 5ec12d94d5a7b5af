// Slices give the same bits as one go, and let the process breathe.
import { expect, test } from "vitest";
import { limit } from "@moevie/contracts";
import { blendWindow, createSampler, fillNoise, guide, noiseSchedule, SAMPLERS, seededNoise } from "@moevie/diffusion";
import { inSlices } from "./slices.ts";

const SLICE = limit("sliceValuesMax");
const VALUES = 2 * SLICE + 5;

test("ranges cover all values once, in order, none larger than the limit", async () => {
  for (const values of [0, 1, SLICE, SLICE + 1, VALUES]) {
    const ranges: number[][] = [];
    await inSlices(values, (start, end) => ranges.push([start, end]));
    expect(ranges.every(([start = 0, end = 0]) => end - start <= SLICE)).toBe(true);
    expect(ranges.flatMap(([start = 0, end = 0], at) => (at === 0 ? [start, end] : [end]))).toEqual(
      values === 0 ? [] : [0, ...ranges.map(([, end]) => end)],
    );
    expect(ranges.at(-1)?.[1] ?? 0).toBe(values);
  }
});

test("a timer that is due fires between two slices", async () => {
  const order: string[] = [];
  const due = performance.now() + 2;
  setTimeout(() => order.push("timer"), 1);
  await inSlices(4 * SLICE, () => {
    while (performance.now() < due);
    order.push("slice");
  });
  expect(order.slice(-1)).toEqual(["slice"]);
  expect(order).toContain("timer");
});

test("guidance, blending, noise and every sampler give the bits of one go", async () => {
  const [a, b] = [seededNoise(1, [VALUES]), seededNoise(2, [VALUES])];
  const noise = new Float32Array(VALUES);
  await inSlices(VALUES, (start, end) => fillNoise(1, noise, start, end));
  expect(Buffer.from(noise.buffer).equals(Buffer.from(a.buffer))).toBe(true);
  const [whole, sliced] = [new Float32Array(VALUES), new Float32Array(VALUES)];
  const same = (): void => expect(Buffer.from(sliced.buffer).equals(Buffer.from(whole.buffer))).toBe(true);
  guide(a, b, 5, whole);
  await inSlices(VALUES, (start, end) => guide(a, b, 5, sliced, start, end));
  same();
  const window = { start: 1, origin: 0, weights: [0, 0.25, 1] };
  const shape = [1, 5, 1, Math.floor(VALUES / 5)] as const;
  const partValues = 3 * shape[3];
  blendWindow(whole, shape, window, a.subarray(0, partValues));
  await inSlices(partValues, (start, end) => blendWindow(sliced, shape, window, a.subarray(0, partValues), start, end));
  same();
  const schedule = noiseSchedule({ steps: 4, shift: 3, grid: "diffusers" });
  for (const name of SAMPLERS) {
    const [one, other] = [createSampler(name, schedule), createSampler(name, schedule)];
    for (let step = 0; step < 4; step++) {
      one.step(step, whole, b);
      await inSlices(VALUES, (start, end) => other.step(step, sliced, b, start, end));
      same();
    }
    expect(other.state()).toEqual(one.state());
  }
});
