// The service over a real socket with a stand-in for the graph; the cache's bounds.
import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { limit, type TextContext } from "@moevie/contracts";
import { createLogger, GrpcPeer, Metrics, serveGrpc, type GrpcServer } from "@moevie/runtime";
import { ContextCache } from "./context-cache.ts";
import { createEncoder } from "./encode.ts";
import { textEncoderService } from "./service.ts";
import { Tokens } from "./tokens.ts";

const WIDTH = 3;
const TOKENS = 6;
const json = JSON.parse(readFileSync(new URL("../testdata/tokenizer.json", import.meta.url), "utf8")) as object;

/** Each kept token's row holds its id, padded rows zeros. */
function rowsOf(ids: BigInt64Array, used: number): Float32Array {
  return Float32Array.from({ length: ids.length * WIDTH }, (_, i) => {
    const row = Math.floor(i / WIDTH);
    return row < used ? Number(ids[row] ?? 0n) : 0;
  });
}

let runs = 0;
/** Told of each run, which goes on when it resolves. */
let onRun: () => Promise<void>;
let folder: string;
let server: GrpcServer;
let peer: GrpcPeer<"moevie.v1.TextEncoderService">;
beforeEach(async () => {
  runs = 0;
  onRun = () => Promise.resolve();
  folder = mkdtempSync(join(tmpdir(), "moevie-text-"));
  const encode = createEncoder({
    tokens: new Tokens(json, TOKENS),
    rowsOf: async (ids, used) => {
      runs++;
      await onRun();
      return rowsOf(ids, used);
    },
    width: WIDTH,
    cache: new ContextCache<TextContext>(1024),
  });
  const log = await createLogger({ service: "test", level: "fatal", format: "json" });
  server = await serveGrpc({
    listen: `unix:${folder}/s`,
    services: [textEncoderService(encode)],
    log,
    metrics: new Metrics("test"),
    reflection: false,
  });
  peer = new GrpcPeer("moevie.v1.TextEncoderService", server.address);
});
afterEach(async () => {
  peer.close();
  await server.close(100);
  rmSync(folder, { recursive: true, force: true });
});

function call(texts: string[]): Promise<unknown> {
  return peer.unary("Encode", { texts }, { timeoutMs: 5000 });
}

describe("Encode", () => {
  it("answers rows with their sha256, empty text too, and computes each text once", async () => {
    const { contexts } = await peer.unary("Encode", { texts: ["a red fox", "", "a red fox"] }, { timeoutMs: 5000 });
    expect(runs).toBe(2);
    expect(contexts.map((context) => context.contextHash)).toEqual(
      contexts.map(({ rows }) => createHash("sha256").update(rows).digest("hex")),
    );
    expect(contexts[0]).toEqual(contexts[2]);
    expect(contexts[1]).toMatchObject({ tokenCount: TOKENS, width: WIDTH, usedTokenCount: 1 });
    const rows = contexts[1]?.rows ?? Buffer.alloc(0);
    expect(Array.from({ length: TOKENS * WIDTH }, (_, i) => rows.readFloatLE(i * 4))).toEqual([
      1,
      1,
      1,
      ...Array.from({ length: 15 }, () => 0),
    ]);
  });

  it("begins no further text of a caller who went away", async () => {
    const entered = Promise.withResolvers<void>();
    const gate = Promise.withResolvers<void>();
    onRun = () => {
      entered.resolve();
      return gate.promise;
    };
    const abort = new AbortController();
    const asked = peer.unary("Encode", { texts: ["one", "two"] }, { timeoutMs: 5000, signal: abort.signal });
    await entered.promise;
    abort.abort();
    await expect(asked).rejects.toMatchObject({ reason: "CANCELLED" });
    // The call's end is behind the cancel on the same connection.
    onRun = () => Promise.resolve();
    await peer.unary("Encode", { texts: ["three"] }, { timeoutMs: 5000 });
    gate.resolve();
    await peer.unary("Encode", { texts: ["one"] }, { timeoutMs: 5000 });
    expect(runs).toBe(2);
  });

  it("names the field when there is no text, too many or one too long", async () => {
    await expect(call([])).rejects.toMatchObject({ reason: "INVALID_FIELD", violations: [{ field: "texts" }] });
    await expect(call(Array.from({ length: limit("textsPerEncodeMax") + 1 }, () => "x"))).rejects.toMatchObject({
      violations: [{ field: "texts" }],
    });
    await expect(call(["x", "y".repeat(limit("promptCharactersMax") + 1)])).rejects.toMatchObject({
      violations: [{ field: "texts[1]" }],
    });
  });
});

function make(bytes: number): () => Promise<{ rows: Uint8Array }> {
  return () => Promise.resolve({ rows: new Uint8Array(bytes) });
}

describe("ContextCache", () => {
  it("stays within its bytes and drops what was used longest ago", async () => {
    const cache = new ContextCache(100);
    await cache.get("a", make(40));
    await cache.get("b", make(40));
    await cache.get("a", make(40));
    await cache.get("c", make(40));
    expect(cache.bytes).toBe(80);
    let made = 0;
    const counted = (): Promise<{ rows: Uint8Array }> => {
      made++;
      return make(40)();
    };
    await cache.get("a", counted);
    expect(made).toBe(0);
    await cache.get("b", counted);
    expect(made).toBe(1);
    await cache.get("huge", make(101));
    expect(cache.bytes).toBeLessThanOrEqual(100);
  });

  it("shares one computation between callers and forgets a failed one", async () => {
    const cache = new ContextCache(100);
    const gate = Promise.withResolvers<{ rows: Uint8Array }>();
    let made = 0;
    const gated = (): Promise<{ rows: Uint8Array }> => {
      made++;
      return gate.promise;
    };
    const both = [cache.get("a", gated), cache.get("a", gated)];
    gate.reject(new Error("no"));
    await Promise.allSettled(both);
    expect(made).toBe(1);
    await cache.get("a", make(1));
    expect(cache.bytes).toBe(1);
  });
});
