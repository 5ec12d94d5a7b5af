// How often checkpoints are due, for stores and steps of all speeds.
import { expect, test } from "vitest";
import { CheckpointSpacing, StorePace } from "./checkpoint-spacing.ts";

const MIB = 2 ** 20;
const SHARE = 0.01;

/** Steps between checkpoints and what they cost of the steps' time, over `steps` steps with a store that takes `takes` seconds each time. */
function played(
  bytes: number,
  takes: (count: number) => number,
  stepSeconds: number,
  steps: number,
  pace = new StorePace(),
) {
  const spacing = new CheckpointSpacing(pace, { stepsMin: 1, shareMax: SHARE });
  const at: number[] = [];
  let seconds = 0;
  for (let step = 1; step <= steps; step += 1) {
    spacing.stepped(stepSeconds);
    if (!spacing.isDue(bytes)) continue;
    spacing.begun();
    const took = takes(at.length);
    pace.took(bytes, took);
    at.push(step);
    seconds += took;
  }
  return { at, share: seconds / (steps * stepSeconds) };
}

test.each([
  { mib: 1, bytesPerSecond: 200e6, stepSeconds: 0.05 },
  { mib: 1, bytesPerSecond: 20e6, stepSeconds: 0.05 },
  { mib: 64, bytesPerSecond: 60e6, stepSeconds: 0.05 },
  { mib: 64, bytesPerSecond: 60e6, stepSeconds: 5 },
  { mib: 256, bytesPerSecond: 1e9, stepSeconds: 5 },
])(
  "they cost a hundredth of the steps' time: $mib MiB at $bytesPerSecond bytes a second, steps of $stepSeconds s",
  (of) => {
    const bytes = of.mib * MIB;
    const each = bytes / of.bytesPerSecond;
    const { at, share } = played(bytes, () => each, of.stepSeconds, Math.ceil((1000 * each) / of.stepSeconds) + 1000);
    expect(at.length).toBeGreaterThan(5);
    // The first may come early, where the store is slower than assumed; a step is not cut in two.
    expect(share).toBeLessThanOrEqual(SHARE * 1.1);
    const gaps = at.slice(3).map((step, place) => step - (at[place + 2] ?? 0));
    expect(new Set(gaps)).toEqual(new Set([Math.ceil((each / SHARE / of.stepSeconds) * (1 - 1e-9))]));
  },
);

test("one that met a stall is soon forgotten; a store that became slow is asked less often", () => {
  const stalled = played(MIB, (count) => (count === 5 ? 60 : 0.02), 1, 60);
  expect(stalled.at.slice(0, 12)).toEqual([4, 8, 10, 12, 14, 16, 24, 32, 34, 36, 38, 40]);
  const slowed = played(MIB, (count) => (count < 5 ? 0.02 : 0.1), 1, 60);
  expect(slowed.at).toEqual([4, 8, 10, 12, 14, 16, 24, 34, 44, 54]);
});

test("times that vary do not take more than the share", () => {
  const takes = [0.01, 0.03, 0.012, 0.02, 0.035, 0.011, 0.015];
  const { share } = played(MIB, (count) => takes[(count * 5) % takes.length] ?? 0, 0.05, 20_000);
  expect(share).toBeLessThanOrEqual(SHARE);
  expect(share).toBeGreaterThan(SHARE / 2);
});

test("what one job learnt serves the next of its size, and says nothing of other sizes", () => {
  const pace = new StorePace();
  played(64 * MIB, () => 0.5, 10, 100, pace);
  expect(pace.seconds(64 * MIB)).toBe(0.5);
  expect(pace.seconds(65 * MIB)).toBe(0.5);
  expect(pace.seconds(MIB)).toBeCloseTo(0.01 + MIB / 50e6, 6);
});

test("they are never nearer than the steps asked for, and always that near where any cost is allowed", () => {
  const pace = new StorePace();
  const spacing = new CheckpointSpacing(pace, { stepsMin: 3, shareMax: Infinity });
  const due = Array.from({ length: 9 }, () => {
    spacing.stepped(0);
    const isDue = spacing.isDue(1);
    if (isDue) spacing.begun();
    return isDue;
  });
  expect(due).toEqual([false, false, true, false, false, true, false, false, true]);
});
