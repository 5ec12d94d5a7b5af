// When a lease counts as dead: unchanged for its length on the observer's own clock.
import { expect, test } from "vitest";
import { LeaseWatch } from "./lease-watch.ts";

const lease = { number: 1, token: 1, revision: 5, leaseMs: 100 };

test("a lease is dead only when its revision stood still for its own length on this clock", () => {
  const watch = new LeaseWatch();
  expect(watch.observe([lease], 1000)).toEqual([]);
  expect(watch.observe([lease], 1099)).toEqual([]);
  expect(watch.observe([lease], 1100)).toEqual([lease]);
});

test("a renewal or another owner starts the time again", () => {
  const watch = new LeaseWatch();
  watch.observe([lease], 0);
  expect(watch.observe([{ ...lease, revision: 6 }], 100)).toEqual([]);
  expect(watch.observe([{ ...lease, revision: 6, token: 2 }], 199)).toEqual([]);
  expect(watch.observe([{ ...lease, revision: 6, token: 2 }], 298)).toEqual([]);
});

test("a job that stopped running is forgotten", () => {
  const watch = new LeaseWatch();
  watch.observe([lease], 0);
  watch.observe([], 50);
  expect(watch.observe([lease], 200)).toEqual([]);
});
