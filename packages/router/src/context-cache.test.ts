// The context cache keeps what was used last within its bytes.
import { expect, test } from "vitest";
import { ContextCache } from "./context-cache.ts";

const context = { ctx: new Float32Array(20), tokens: 10, pooled: new Float32Array(5) };

test("the least recently used context goes first, and the bytes stay within the maximum", () => {
  const cache = new ContextCache(250);
  cache.put("a", context);
  cache.put("b", context);
  expect(cache.get("a")).toBe(context);
  cache.put("c", context);
  expect([cache.get("a"), cache.get("b"), cache.get("c")]).toEqual([context, undefined, context]);
  expect(cache.bytes).toBe(200);
});

test("putting a context again does not count it twice", () => {
  const cache = new ContextCache(250);
  cache.put("a", context);
  cache.put("a", context);
  expect(cache.bytes).toBe(100);
});
