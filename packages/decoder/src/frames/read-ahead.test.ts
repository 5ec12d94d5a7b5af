// Holds the order, the bound and the ends of reading ahead.
import { describe, expect, test } from "vitest";
import { readAhead } from "./read-ahead.ts";

/** Lets everything that is ready run. */
const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

function counted(total: number): { source: AsyncIterable<number>; made: () => number; ended: () => boolean } {
  let made = 0;
  let ended = false;
  async function* source(): AsyncGenerator<number, void> {
    try {
      while (made < total) yield made++;
    } finally {
      ended = true;
    }
  }
  return { source: source(), made: () => made, ended: () => ended };
}

async function* failing(): AsyncGenerator<number, void> {
  yield 1;
  throw new Error("gone");
}

describe("readAhead", () => {
  test("gives every item in order", async () => {
    const seen: number[] = [];
    for await (const item of readAhead(counted(20).source, 3)) seen.push(item);
    expect(seen).toEqual(Array.from({ length: 20 }, (_, i) => i));
  });

  test("runs no further ahead than its bound", async () => {
    const { source, made } = counted(20);
    const reader = readAhead(source, 3);
    await reader.next();
    await settled();
    expect(made()).toBeLessThanOrEqual(4);
    await reader.return();
  });

  test("ends the source when the reader stops", async () => {
    const { source, ended } = counted(20);
    for await (const item of readAhead(source, 3)) if (item === 1) break;
    expect(ended()).toBe(true);
  });

  test("hands on a failure after the items before it", async () => {
    const seen: number[] = [];
    const reading = (async () => {
      for await (const item of readAhead(failing(), 3)) seen.push(item);
    })();
    await expect(reading).rejects.toThrow("gone");
    expect(seen).toEqual([1]);
  });
});
