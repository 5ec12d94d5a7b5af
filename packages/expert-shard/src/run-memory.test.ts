// Memory of runs grows whole or not at all, and what a huge call took is given back.
import { OnnxThread } from "@moevie/runtime";
import { afterEach, expect, test } from "vitest";
import { HeldGraph } from "./held-graph.ts";
import { RunMemory } from "./run-memory.ts";

const d = 1536;
const thread = OnnxThread.start({ name: "test", device: "cpu", intraOpThreads: 1 });
afterEach(() => thread.close());

test("a run there is no memory for fails alone: the next one gets all its rows", () => {
  const memory = new RunMemory(d, 4096);
  const layer = { layer: 0, experts: Uint16Array.of(0, 1), graph: new HeldGraph(thread, "experts", () => undefined) };
  expect(memory.reserve(layer, 100).rows.length).toBe(256 * d);
  expect(() => memory.reserve(layer, 2 ** 42)).toThrow(expect.objectContaining({ reason: "OUT_OF_MEMORY" }) as Error);
  expect(memory.reserve(layer, 5000).rows.length).toBe(8192 * d);
  expect(memory.reserve(layer, 5000).answers.length).toBe(8192 * d);
  memory.shrink();
  expect(memory.reserve(layer, 100).rows.length).toBe(256 * d);
});
