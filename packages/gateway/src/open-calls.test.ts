// Long calls are bounded by kind: one too many is refused with when to come back, and one that ends makes room.
import { expect, test } from "vitest";
import { OpenCalls } from "./open-calls.ts";

async function* endless(): AsyncIterable<number> {
  for (let at = 0; ; at++) yield at;
}

test("one stream too many is refused until another one ends; other kinds have room of their own", async () => {
  const calls = new OpenCalls({ watches: 2 });
  const open = () => calls.stream("watches", endless)[Symbol.asyncIterator]();
  const [first, second, third] = [open(), open(), open()];
  expect(await first.next()).toEqual({ done: false, value: 0 });
  expect(await second.next()).toEqual({ done: false, value: 0 });
  await expect(third.next()).rejects.toMatchObject({
    reason: "TOO_MANY_OPEN_CALLS",
    message: "2 watches are open at this gateway, the most it holds.",
    retryAfterMs: 5000,
  });
  expect(await calls.during("waits", () => Promise.resolve(7))).toBe(7);
  await first.return?.();
  expect(await open().next()).toEqual({ done: false, value: 0 });
  expect(await second.next()).toEqual({ done: false, value: 1 });
});

test("work that fails makes room, too", async () => {
  const calls = new OpenCalls({ waits: 1 });
  await expect(calls.during("waits", () => Promise.reject(new Error("gone")))).rejects.toThrow("gone");
  expect(await calls.during("waits", () => Promise.resolve(7))).toBe(7);
});
