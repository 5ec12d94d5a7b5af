// Watch streams are bounded: one too many is refused with when to come back, and a closed one makes room.
import { expect, test } from "vitest";
import { OpenWatches } from "./open-watches.ts";

async function* endless(): AsyncIterable<number> {
  for (let at = 0; ; at++) yield at;
}

test("one watch too many is refused until another one ends", async () => {
  const watches = new OpenWatches(2);
  const open = () => watches.bounded(endless())[Symbol.asyncIterator]();
  const [first, second, third] = [open(), open(), open()];
  expect(await first.next()).toEqual({ done: false, value: 0 });
  expect(await second.next()).toEqual({ done: false, value: 0 });
  await expect(third.next()).rejects.toMatchObject({ reason: "WATCHES_FULL", retryAfterMs: 5000 });
  await first.return?.();
  expect(await open().next()).toEqual({ done: false, value: 0 });
  expect(await second.next()).toEqual({ done: false, value: 1 });
});
