// Copies of whole denoisers follow the steps they serve.
import { expect, test } from "vitest";
import { placeByNoise } from "./place-by-noise.ts";

/** Wan2.2's text-to-video: 40 steps, shift 12, two experts that part at 875, of which one serves 26 steps and the other 14. */
const manifest = {
  schedule: { shift: 12, grid: "reference" },
  variants: { standard: { steps: 40, guidance: 3.5, graphs: "" } },
};
const denoiser = { gate: { kind: "timestep", from: [875, 0] }, graphs: ["high", "low"] } as const;
const placed = (shards: number, from: readonly number[] = denoiser.gate.from): number[][] =>
  placeByNoise(manifest, { ...denoiser, gate: { ...denoiser.gate, from } }, shards).shards.map(({ slots }) =>
    slots.map(([, expert]) => expert),
  );

test("a shard has one, and there are as many copies as the steps are", () => {
  expect(placed(2)).toEqual([[0], [1]]);
  expect(placed(3)).toEqual([[0], [1], [0]]);
  expect(
    placed(6)
      .flat()
      .filter((expert) => expert === 0).length,
  ).toBe(4);
});

test("where the bound leaves the first expert fewer steps, the other has more copies", () => {
  expect(placed(3, [970, 0])).toEqual([[0], [1], [1]]);
});

test("with fewer shards than experts, one has several; with one expert, all have it", () => {
  expect(placed(1)).toEqual([[0, 1]]);
  expect(placeByNoise(manifest, { gate: { kind: "timestep", from: [0] }, graphs: ["only"] }, 2).shards).toEqual([
    { slots: [[0, 0]] },
    { slots: [[0, 0]] },
  ]);
});

test("a grid that this build has not is refused", () => {
  const other = { ...manifest, schedule: { shift: 12, grid: "odd" } };
  expect(() => placeByNoise(other, denoiser, 2)).toThrow('The bundle\'s schedule.grid is "odd"');
});
