// What is refused for want of memory, and what is only told to wait.
import { expect, test } from "vitest";
import { Room, type Memory } from "./room.ts";

const ROWS = 1000;
const WIDTH = 128;
const NEEDED = ROWS * WIDTH * 4 * 64;

const room = (memory: Memory): Room => new Room(WIDTH, () => memory);
const begin = (of: Room): Promise<string> => of.within(ROWS, () => Promise.resolve("began"));

test.each([
  ["fits", { free: NEEDED, own: 0 }],
  ["has memory of its own to use again", { free: NEEDED - 1, own: 1 }],
  ["is on a device that does not tell", { free: Infinity, own: 0 }],
])("an evaluation that %s begins", async (_what, memory) => {
  expect(await begin(room(memory))).toBe("began");
});

test("one that could never fit is refused with the bytes", async () => {
  const text = `An evaluation of 1000 rows takes about ${NEEDED} bytes; this router could have ${NEEDED - 1} at most.`;
  await expect(begin(room({ free: NEEDED - 2, own: 1 }))).rejects.toMatchObject({
    reason: "OUT_OF_MEMORY",
    message: text,
  });
});

test("one that others leave no room for is told to come again, and begins when they are done", async () => {
  const tight = room({ free: NEEDED - 2, own: 9 });
  const first = Promise.withResolvers<void>();
  const running = tight.within(ROWS, () => first.promise);
  await expect(begin(tight)).rejects.toMatchObject({ reason: "QUEUE_FULL", retryAfterMs: 1000 });
  first.resolve();
  await running;
  expect(await begin(tight)).toBe("began");
});

test("says how many evaluations there is room for, and looks at the system once in a while", () => {
  let looks = 0;
  const counted = new Room(WIDTH, () => ({ free: 2.5 * NEEDED, own: ++looks }));
  expect([counted.evaluations(ROWS), counted.evaluations(2 * ROWS), counted.evaluations(3 * ROWS)]).toEqual([2, 1, 0]);
  expect(looks).toBe(1);
});
