// Memory of runs grows whole or not at all, and what a huge call took is given back.
import { OnnxThread } from "@moevie/runtime";
import { afterEach, expect, test } from "vitest";
import { RunMemory } from "./run-memory.ts";

const d = 1536;
const thread = OnnxThread.start({ name: "test", device: "cpu", intraOpThreads: 1 });
afterEach(() => thread.close());

test("a run there is no memory for fails alone: the next one gets all its rows", () => {
  const memory = new RunMemory(thread, new Map([[0, Uint16Array.of(0, 1)]]), d, 4096);
  expect(memory.reserve(0, 100).rows.length).toBe(256 * d);
  expect(() => memory.reserve(0, 2 ** 42)).toThrow(expect.objectContaining({ reason: "OUT_OF_MEMORY" }) as Error);
  expect(memory.reserve(0, 5000).rows.length).toBe(8192 * d);
  expect(memory.reserve(0, 5000).answers.length).toBe(8192 * d);
  memory.shrink();
  expect(memory.reserve(0, 100).rows.length).toBe(256 * d);
});
