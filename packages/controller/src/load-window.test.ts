// Loads of late: what is counted anew, worth half after a half-life, whatever routers come and go.
import { expect, test } from "vitest";
import { LoadWindow } from "./load-window.ts";

const of = (...rows: number[]): Float64Array[] => [Float64Array.from(rows)];

test("rows are worth half after a half-life; a router's count is since its start", () => {
  const window = new LoadWindow(1, 2, 1000);
  window.add("a", of(8, 0), 5000);
  expect(window.loads(5000)).toEqual(of(8, 0));
  window.add("a", of(10, 4), 6000);
  expect(window.loads(6000)).toEqual(of(6, 4));
  window.add("b", of(1, 1), 6000);
  expect(window.loads(6000)).toEqual(of(7, 5));
  // Router a started again.
  window.add("a", of(3, 0), 6000);
  expect(window.loads(6000)).toEqual(of(10, 5));
  expect(window.loads(7000)).toEqual(of(5, 2.5));
});

test("a router that is gone ages out: after four half-lives nothing of it counts, and one that comes back counts from its start", () => {
  const window = new LoadWindow(1, 2, 1000);
  window.add("gone", of(0, 16), 0);
  window.add("there", of(16, 0), 0);
  for (const [nowMs, gone] of [
    [1000, 8],
    [2000, 4],
    [3000, 2],
    [3999, 1],
  ] as const) {
    window.add("there", of(16, 0), nowMs);
    expect(window.loads(nowMs)[0]?.[1]).toBeCloseTo(gone, 2);
  }
  window.add("there", of(16, 0), 4000);
  expect(window.loads(4000)[0]?.[1]).toBe(0);
  expect(window.loads(4000)[0]?.[0]).toBeCloseTo(1);
  expect(window.loads(8000)).toEqual(of(0, 0));
  window.add("gone", of(0, 3), 8000);
  expect(window.loads(8000)).toEqual(of(0, 3));
});
