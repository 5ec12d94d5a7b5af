// Rows are counted where they belong: layer, expert and the phase of their step.
import { expect, test } from "vitest";
import { ExpertStatistics } from "./expert-statistics.ts";

test("rows count in the phase of their timestep, and in the sum", () => {
  const statistics = new ExpertStatistics(2, 3);
  statistics.count(0, Int32Array.of(0, 2, 2), 1000);
  statistics.count(0, Int32Array.of(2), 750);
  statistics.count(1, Int32Array.of(1), 749);
  statistics.count(1, Int32Array.of(1, 0), 0);
  const { rows, phases } = statistics.snapshot();
  expect(rows).toEqual([
    [1, 0, 3],
    [1, 2, 0],
  ]);
  expect(phases.map((layers) => layers.flat())).toEqual([
    [1, 0, 3, 0, 0, 0],
    [0, 0, 0, 0, 1, 0],
    [0, 0, 0, 0, 0, 0],
    [0, 0, 0, 1, 1, 0],
  ]);
});
