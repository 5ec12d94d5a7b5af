// What is refused for want of memory, and what is only told to wait.
import { expect, test } from "vitest";
import { checkRoom, evaluationBytes } from "./room.ts";

const NEEDED = evaluationBytes(1000, 128);

test.each([
  ["fits", { free: NEEDED, own: 0, busy: true }],
  ["has memory of its own to use again", { free: NEEDED - 1, own: 1, busy: false }],
  ["is on a device that does not tell", { free: Infinity, own: 0, busy: true }],
])("an evaluation that %s begins", (_what, memory) => {
  expect(() => checkRoom(1000, 128, memory)).not.toThrow();
});

test("one that could never fit is refused with the bytes; one that others leave no room for is told to come again", () => {
  const refused = { reason: "OUT_OF_MEMORY", message: expect.stringContaining(`${NEEDED} bytes`) as string };
  expect(() => checkRoom(1000, 128, { free: NEEDED - 2, own: 1, busy: false })).toThrow(
    expect.objectContaining(refused),
  );
  const later = { reason: "QUEUE_FULL", retryAfterMs: 1000 };
  expect(() => checkRoom(1000, 128, { free: NEEDED - 2, own: 9, busy: true })).toThrow(expect.objectContaining(later));
});
