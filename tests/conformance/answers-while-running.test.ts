// A service whose graph runs goes on answering: health over gRPC and HTTP, and other calls, while one call computes.
import { spawn, type ChildProcess } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import { importStarter } from "@moevie/importer";
import { GrpcPeer } from "@moevie/runtime";
import { writeTinyModel } from "../parity/tiny.ts";

const TIMEOUT_MS = 120_000;
/** Answers of each kind, one after the other, that must come while one graph runs. */
const ANSWERS = 5;

const folder = mkdtempSync(join(tmpdir(), "moevie-answers-"));
let child: ChildProcess;
let peer: GrpcPeer<"moevie.v1.TextEncoderService">;

beforeAll(async () => {
  // So many tokens that one long text takes the graph long: attention grows with their square.
  writeTinyModel(join(folder, "model"), { maxTokens: 3000, textWidth: 128 });
  await importStarter(join(folder, "model"), join(folder, "bundle"));
  const env = {
    MOEVIE_GRPC_LISTEN: `unix:${folder}/g`,
    MOEVIE_HTTP_LISTEN: `unix:${folder}/h`,
    MOEVIE_BUNDLE: join(folder, "bundle"),
    MOEVIE_LOG_LEVEL: "warn",
  };
  const main = fileURLToPath(new URL("../../packages/text-encoder/src/main.ts", import.meta.url));
  child = spawn(process.execPath, [main], { env, stdio: ["ignore", "inherit", "inherit"] });
  peer = new GrpcPeer("moevie.v1.TextEncoderService", `unix:${folder}/g`);
  await peer.waitReady({ timeoutMs: TIMEOUT_MS });
});
afterAll(async () => {
  peer.close();
  const ended = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGTERM");
  await ended;
  rmSync(folder, { recursive: true, force: true });
});

function status(path: string): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    const asked = request({ socketPath: join(folder, "h"), path, agent: false }, (answer) => {
      answer.resume();
      resolve(answer.statusCode);
    });
    asked.on("error", reject);
    asked.end();
  });
}

test("health and other calls are answered while a graph runs", async () => {
  await peer.unary("Encode", { texts: ["a known text"] }, { timeoutMs: TIMEOUT_MS });
  const over = new AbortController();
  const long = peer
    .unary("Encode", { texts: ["q x z, ".repeat(280)] }, { timeoutMs: TIMEOUT_MS })
    .finally(() => over.abort());
  const answered: string[] = [];
  while (!over.signal.aborted) {
    await peer.waitReady({ timeoutMs: TIMEOUT_MS });
    if (!over.signal.aborted) answered.push("grpc health");
    expect([await status("/livez"), await status("/readyz"), await status("/metrics")]).toEqual([200, 200, 200]);
    if (!over.signal.aborted) answered.push("http");
    await peer.unary("Encode", { texts: ["a known text"] }, { timeoutMs: TIMEOUT_MS });
    if (!over.signal.aborted) answered.push("a call whose answer is kept");
  }
  await long;
  for (const kind of ["grpc health", "http", "a call whose answer is kept"])
    expect(answered.filter((each) => each === kind).length, kind).toBeGreaterThanOrEqual(ANSWERS);
});
