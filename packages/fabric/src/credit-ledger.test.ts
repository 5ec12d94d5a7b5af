// The credit books: never more granted than the budget, and nobody starves while credit comes back.
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { CreditLedger } from "./credit-ledger.ts";
import type { CreditOrder } from "./credit-ledger.ts";
import { ExchangeDeadline } from "./deadline.ts";

const budgetBytes = 1200;
const action = fc.record({
  stream: fc.nat(4),
  kind: fc.constantFrom("open", "close", "spend", "settle"),
  bytes: fc.integer({ min: 1, max: 400 }),
});

test("whatever routers do, grants stay within the budget and idle streams reach their share", () => {
  fc.assert(
    fc.property(fc.array(action, { maxLength: 80 }), (actions) => {
      const ledger = new CreditLedger<number>(budgetBytes);
      /** By open stream; every opening is a stream of its own. */
      const unspent = new Map<number, number>();
      /** By stream, also of those that are closed since. */
      const spent = new Map<number, number[]>();
      const current = new Map<number, number>();
      let streams = 0;
      const obey = (orders: readonly CreditOrder<number>[]): void => {
        for (const order of orders) {
          const have = unspent.get(order.stream) ?? 0;
          if (order.kind === "grant") unspent.set(order.stream, have + order.bytes);
          else {
            const given = Math.max(0, have - order.keepBytes);
            unspent.set(order.stream, have - given);
            const next = ledger.giveBack(order.stream, given);
            expect(next).not.toBe(false);
            if (next !== false) obey(next);
          }
        }
        const held = [...spent.values()].flat().reduce((sum, one) => sum + one, 0);
        const granted = [...unspent.values()].reduce((sum, one) => sum + one, 0);
        expect(ledger.outstandingBytes).toBe(held + granted);
        expect(ledger.outstandingBytes).toBeLessThanOrEqual(budgetBytes);
      };
      for (const { stream: place, kind, bytes } of actions) {
        const open = current.has(place);
        if (kind === "open" && !open) current.set(place, streams++);
        const stream = current.get(place) ?? -1;
        if (kind === "open" && !open) {
          unspent.set(stream, 0);
          spent.set(stream, []);
          obey(ledger.open(stream));
        } else if (kind === "close" && open) {
          unspent.delete(stream);
          current.delete(place);
          // A request that was coming in is never whole.
          const arriving = bytes % 2 === 0 ? (spent.get(stream)?.pop() ?? 0) : 0;
          obey(ledger.close(stream, arriving));
        } else if (kind === "spend" && open) {
          const allowed = (unspent.get(stream) ?? 0) >= bytes;
          expect(ledger.spend(stream, bytes)).toBe(allowed);
          if (allowed) {
            unspent.set(stream, (unspent.get(stream) ?? 0) - bytes);
            spent.get(stream)?.push(bytes);
          }
        } else if (kind === "settle") {
          const [busy, requests] = [...spent].find(([, list]) => list.length > 0) ?? [];
          if (busy !== undefined) obey(ledger.settle(busy, requests?.pop() ?? 0));
        }
      }
      for (const [stream, requests] of spent)
        for (let bytes = requests.pop(); bytes !== undefined; bytes = requests.pop())
          obey(ledger.settle(stream, bytes));
      for (const bytes of unspent.values()) expect(bytes).toBeGreaterThanOrEqual(ledger.shareBytes - unspent.size);
    }),
  );
});

test("a deadline is four times the moving p99 within its limits", () => {
  const deadline = new ExchangeDeadline();
  expect(deadline.deadlineMs).toBe(30_000);
  for (let at = 0; at < 16; at++) deadline.observe(1);
  expect(deadline.deadlineMs).toBe(250);
  for (let at = 0; at < 256; at++) deadline.observe(500);
  expect(deadline.deadlineMs).toBe(2000);
});
