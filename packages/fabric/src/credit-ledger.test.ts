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
      const unspent = new Map<number, number>();
      const spent = new Map<number, number[]>();
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
        expect(ledger.outstandingBytes).toBeLessThanOrEqual(budgetBytes);
      };
      for (const { stream, kind, bytes } of actions) {
        const open = unspent.has(stream);
        if (kind === "open" && !open) {
          unspent.set(stream, 0);
          spent.set(stream, []);
          obey(ledger.open(stream));
        } else if (kind === "close" && open) {
          unspent.delete(stream);
          obey(ledger.close(stream));
        } else if (kind === "spend" && open) {
          const allowed = (unspent.get(stream) ?? 0) >= bytes;
          expect(ledger.spend(stream, bytes)).toBe(allowed);
          if (allowed) {
            unspent.set(stream, (unspent.get(stream) ?? 0) - bytes);
            spent.get(stream)?.push(bytes);
          }
        } else if (kind === "settle" && open) obey(ledger.settle(stream, spent.get(stream)?.pop() ?? 0));
      }
      for (const [stream, requests] of spent) {
        if (unspent.has(stream)) for (const bytes of requests) obey(ledger.settle(stream, bytes));
      }
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
