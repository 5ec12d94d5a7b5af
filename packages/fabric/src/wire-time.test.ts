// The way to a shard and the way back are told apart: exactly by one clock, and by two as well as the fastest exchange allows.
import { expect, test } from "vitest";
import { WireTime, monotonicUs } from "./wire-time.ts";

/** As both ends would write it, with the shard's clock `offsetUs` ahead. */
function passage(startUs: number, offsetUs: number, [up, held, down]: readonly [number, number, number]) {
  return {
    sentUs: startUs >>> 0,
    arrivedUs: (startUs + up + offsetUs) >>> 0,
    heldUs: held,
    answeredUs: (startUs + up + held + down) >>> 0,
  };
}

test("by one clock the way out is what it took, also where the clock begins anew", () => {
  const time = new WireTime(true);
  expect(time.upUs(passage(1000, 0, [300, 50, 20]))).toBe(300);
  expect(time.upUs(passage(2 ** 32 - 100, 0, [300, 50, 20]))).toBe(300);
});

test.each([0, 123_456_789, -5_000_000, 2 ** 31 + 17])(
  "by clocks %i us apart it is known once a fast exchange was seen, within half of what that took",
  (offsetUs) => {
    const time = new WireTime(false);
    // Nothing is known of the clocks yet: half.
    expect(time.upUs(passage(10, offsetUs, [900, 10, 100]))).toBe(500);
    expect(time.upUs(passage(2000, offsetUs, [30, 10, 20]))).toBe(25);
    expect(time.upUs(passage(4000, offsetUs, [900, 10, 100]))).toBe(895);
    expect(time.upUs(passage(6000, offsetUs, [40, 10, 2000]))).toBe(35);
  },
);

test("clocks that drift apart are followed: a fast exchange counts for two windows at most", () => {
  const time = new WireTime(false);
  const second = 1_000_000;
  time.upUs(passage(0, 0, [10, 0, 10]));
  expect(time.upUs(passage(4 * second, 300, [500, 0, 500]))).toBe(800);
  time.upUs(passage(6 * second, 300, [40, 0, 40]));
  expect(time.upUs(passage(12 * second, 300, [500, 0, 500]))).toBe(500);
  // A minute later the clocks are taken anew.
  expect(time.upUs(passage(72 * second, 9000, [100, 0, 500]))).toBe(300);
});

test("never less than nothing nor more than all of the time on the wire", () => {
  const time = new WireTime(true);
  expect(time.upUs(passage(0, -50, [10, 5, 10]))).toBe(0);
  expect(time.upUs(passage(0, 500, [10, 5, 10]))).toBe(20);
});

test("the clock runs by the microsecond", () => {
  const before = monotonicUs();
  const now = Math.floor(Number(process.hrtime.bigint()) / 1000) >>> 0;
  const after = monotonicUs();
  expect((now - before) | 0).toBeGreaterThanOrEqual(-2);
  expect((after - now) | 0).toBeGreaterThanOrEqual(-2);
});
