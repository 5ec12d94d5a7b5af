// Rows are counted by the phase of their step.
import { expect, test } from "vitest";
import { ExpertStatistics } from "./expert-statistics.ts";

test("every timestep falls into one of four phases, the noisiest first, and all of them make the sum", () => {
  const statistics = new ExpertStatistics(2, 3);
  for (const timestep of [1000, 751, 750, 500, 1, 0]) statistics.count(1, Int32Array.of(2, 0), timestep);
  const { rows, phases } = statistics.snapshot();
  expect(phases.map(({ fromTimestep }) => fromTimestep)).toEqual([750, 500, 250, 0]);
  expect(phases.map((phase) => phase.rows[1])).toEqual([
    [2, 0, 2],
    [1, 0, 1],
    [1, 0, 1],
    [2, 0, 2],
  ]);
  expect(rows).toEqual([
    [0, 0, 0],
    [6, 0, 6],
  ]);
});
