// When answers are late, how many hedges there may be, and who is set aside for how long.
import { expect, test } from "vitest";
import { HedgePolicy, type ExchangeKind } from "./hedge-policy.ts";

const rows: ExchangeKind = { name: "rows" };

function seen(policy: HedgePolicy, shard: number, kind: ExchangeKind, times: readonly number[]): void {
  for (const ms of times) policy.answered(shard, kind, ms);
}

test("an answer is late after twice the p95 of its kind, never before the least, and never while too few were seen", () => {
  const policy = new HedgePolicy({ share: 0.05, afterMsMin: 50 });
  seen(
    policy,
    0,
    rows,
    Array.from({ length: 15 }, () => 100),
  );
  expect(policy.lateAfterMs(0, rows)).toBe(Infinity);
  seen(policy, 0, rows, [100]);
  expect(policy.lateAfterMs(0, rows)).toBe(200);
  expect([policy.lateAfterMs(0, { name: "more rows" }), policy.lateAfterMs(1, rows)]).toEqual([Infinity, Infinity]);
  seen(
    policy,
    1,
    rows,
    Array.from({ length: 16 }, () => 3),
  );
  expect(policy.lateAfterMs(1, rows)).toBe(50);
  // One slow answer of thirty-two is above the p95, three are not.
  seen(policy, 1, rows, [...Array.from({ length: 15 }, () => 3), 900]);
  expect(policy.lateAfterMs(1, rows)).toBe(50);
  seen(policy, 1, rows, [...Array.from({ length: 12 }, () => 3), 900, 900, 900, 900]);
  expect(policy.lateAfterMs(1, rows)).toBe(1800);
});

test("kinds are bounded, the one not seen for longest goes first", () => {
  const policy = new HedgePolicy({ share: 0.05 });
  for (let kind = 0; kind < 33; kind++)
    seen(
      policy,
      0,
      { name: `${kind}` },
      Array.from({ length: 16 }, () => 100),
    );
  expect([0, 1, 32].map((kind) => policy.lateAfterMs(0, { name: `${kind}` }))).toEqual([Infinity, 200, 200]);
});

test("there are ten hedges at first, then one for each twenty exchanges, and none where the share is 0", () => {
  const policy = new HedgePolicy({ share: 0.05 });
  const taken = (): number => {
    let count = 0;
    while (policy.take()) count++;
    return count;
  };
  expect(taken()).toBe(10);
  for (let exchange = 0; exchange < 401; exchange++) policy.lateAfterMs(0, rows);
  expect(taken()).toBe(10);
  for (let exchange = 0; exchange < 101; exchange++) policy.lateAfterMs(0, rows);
  expect(taken()).toBe(5);
  const none = new HedgePolicy({ share: 0 });
  seen(
    none,
    0,
    rows,
    Array.from({ length: 16 }, () => 100),
  );
  none.late(0, 0);
  expect([none.lateAfterMs(0, rows), none.take(), none.inTime([0, 1], 1)]).toEqual([Infinity, false, [0, 1]]);
});

test("a shard that was late is set aside, twice as long each time until it answers in time; nobody is where all are", () => {
  const policy = new HedgePolicy({ share: 0.05 });
  const isAside = (nowMs: number): boolean => policy.inTime([0, 1], nowMs).length === 1;
  policy.late(0, 1000);
  // Of the same moment: it counts once.
  policy.late(0, 1001);
  expect([isAside(1000), isAside(1249), isAside(1250)]).toEqual([true, true, false]);
  policy.late(0, 2000);
  expect([isAside(2499), isAside(2500)]).toEqual([true, false]);
  expect(policy.inTime([0], 2100)).toEqual([0]);
  policy.late(1, 2100);
  expect(policy.inTime([0, 1], 2200)).toEqual([0, 1]);
  seen(policy, 0, rows, [3]);
  policy.late(0, 9000);
  expect([isAside(9249), isAside(9250)]).toEqual([true, false]);
  for (let nowMs = 10_000; nowMs < 1_000_000; nowMs += 50_000) policy.late(0, nowMs);
  expect([isAside(960_000 + 29_999), isAside(960_000 + 30_000)]).toEqual([true, false]);
});

const kind = (rowsLog2: number, expertsLog2: number): ExchangeKind => ({
  name: `${rowsLog2} ${expertsLog2}`,
  size: { rowsLog2, expertsLog2 },
});
const times = (ms: number): number[] => Array.from({ length: 16 }, () => ms);

test("a kind that was not seen is judged by the nearest that was: as many times as long as it has more rows and experts, never less", () => {
  const policy = new HedgePolicy({ share: 0.05 });
  expect(policy.lateAfterMs(0, kind(4, 2))).toBe(Infinity);
  seen(policy, 0, kind(4, 2), times(40));
  seen(policy, 0, kind(6, 3), times(100));
  seen(policy, 0, { name: "latent" }, times(1));
  const asked = [kind(4, 2), kind(4, 3), kind(6, 2), kind(7, 3), kind(7, 5), kind(2, 1)];
  expect(asked.map((each) => policy.lateAfterMs(0, each))).toEqual([80, 160, 200, 400, 1600, 80]);
  expect([policy.lateAfterMs(0, { name: "another latent" }), policy.lateAfterMs(1, kind(4, 2))]).toEqual([
    Infinity,
    Infinity,
  ]);
});
