// Loads of late: what is counted anew, worth half after a half-life, whatever routers come and go.
import { expect, test } from "vitest";
import { LoadWindow } from "./load-window.ts";

const of = (...rows: number[]): Float64Array[] => [Float64Array.from(rows)];

test("rows are worth half after a half-life; a router's count is since its start", () => {
  const window = new LoadWindow(1, 2, 1000);
  window.add("a", of(8, 0), 5000);
  expect(window.loads()).toEqual(of(8, 0));
  window.add("a", of(10, 4), 6000);
  expect(window.loads()).toEqual(of(6, 4));
  window.add("b", of(1, 1), 6000);
  expect(window.loads()).toEqual(of(7, 5));
  // Router a started again.
  window.add("a", of(3, 0), 6000);
  expect(window.loads()).toEqual(of(10, 5));
});
