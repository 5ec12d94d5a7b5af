// The decoder as a process, over its socket, with a tiny random model: what it streams, refuses, and leaves behind.
import { spawn, type ChildProcess } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openBundle } from "@moevie/bundle";
import type { ClipFacts, DecodeHead, DecodeProgress } from "@moevie/contracts";
import { importStarter } from "@moevie/importer";
import { GrpcPeer } from "@moevie/runtime";
import { probeClip, readFrames } from "../e2e/probe-clip.ts";
import { seeded, writeTinyModel, type TinySizes } from "../parity/tiny.ts";

const folder = mkdtempSync(join(tmpdir(), "moevie-decoder-"));
const runFolder = join(folder, "run");
const TIMEOUT_MS = 60_000;
const LATENT_FRAMES = 3;

let child: ChildProcess;
let peer: GrpcPeer<"moevie.v1.DecodeService">;
let digest: string;
let sizes: TinySizes;

beforeAll(async () => {
  sizes = writeTinyModel(join(folder, "model"));
  await importStarter(join(folder, "model"), join(folder, "bundle"));
  ({ digest } = await openBundle(join(folder, "bundle")));
  mkdirSync(runFolder, { mode: 0o700 });
  const main = fileURLToPath(new URL("../../packages/decoder/src/main.ts", import.meta.url));
  const env = {
    PATH: process.env["PATH"],
    MOEVIE_GRPC_LISTEN: `unix:${runFolder}/decoder.sock`,
    MOEVIE_HTTP_LISTEN: `unix:${runFolder}/decoder-http.sock`,
    MOEVIE_BUNDLE: join(folder, "bundle"),
    MOEVIE_RUN_DIR: runFolder,
    MOEVIE_LOG_LEVEL: "warn",
  };
  child = spawn(process.execPath, [main], { env, stdio: ["ignore", "inherit", "inherit"] });
  peer = new GrpcPeer("moevie.v1.DecodeService", env.MOEVIE_GRPC_LISTEN);
  await peer.waitReady({ timeoutMs: TIMEOUT_MS });
});

afterAll(async () => {
  peer.close();
  const ended = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGTERM");
  await ended;
  rmSync(folder, { recursive: true, force: true });
});

function head(changes: Partial<DecodeHead> = {}): DecodeHead {
  const shape = [sizes.channels, LATENT_FRAMES, sizes.pixelHeight / 8, sizes.pixelWidth / 8];
  const latent = { elementType: "ELEMENT_TYPE_F32" as const, shape };
  return { bundleDigest: digest, latent, width: 320, height: 256, fps: 24, frameCount: 24, comment: "", ...changes };
}

function latentBytes(): Buffer {
  const random = seeded(7);
  const count = head().latent?.shape.reduce((product, size) => product * size, 1) ?? 0;
  return Buffer.from(Float32Array.from({ length: count }, () => random()).buffer);
}

async function* request(
  parts: readonly (DecodeHead | Buffer)[],
): AsyncGenerator<{ head?: DecodeHead; chunk?: Buffer }, void> {
  for (const part of parts) yield Buffer.isBuffer(part) ? { chunk: part } : { head: part };
}

interface Answer {
  readonly progress: readonly DecodeProgress[];
  readonly mp4: Buffer;
  readonly facts: ClipFacts | undefined;
}

async function decoded(...parts: (DecodeHead | Buffer)[]): Promise<Answer> {
  const progress: DecodeProgress[] = [];
  const chunks: Buffer[] = [];
  let facts: ClipFacts | undefined;
  for await (const answer of peer.bidi("Decode", request(parts), { timeoutMs: TIMEOUT_MS })) {
    if (answer.part === "progress" && answer.progress !== undefined) progress.push(answer.progress);
    if (answer.part === "mp4Chunk" && answer.mp4Chunk !== undefined) chunks.push(answer.mp4Chunk);
    if (answer.part === "facts") facts = answer.facts;
  }
  return { progress, mp4: Buffer.concat(chunks), facts };
}

const temporaryFiles = (): string[] => readdirSync(runFolder).filter((name) => !name.endsWith(".sock"));

describe("the decoder service", () => {
  test("streams progress, the file and its facts, and keeps nothing", async () => {
    const bytes = latentBytes();
    const { progress, mp4, facts } = await decoded(head(), bytes.subarray(0, 100), bytes.subarray(100));
    const path = join(folder, "clip.mp4");
    writeFileSync(path, mp4);
    expect(progress.at(-1)).toEqual({ framesEncoded: 24, frameCount: 24 });
    expect(facts).toMatchObject({
      sizeBytes: mp4.length,
      sha256: createHash("sha256").update(mp4).digest("hex"),
      codec: "h264",
      pixelFormat: "yuv420p",
      width: 320,
      height: 256,
      fps: 24,
      frameCount: 24,
    });
    expect(facts?.vaeUs).toBeGreaterThan(0);
    expect(await probeClip(path)).toMatchObject({ frameCount: 24, durationSeconds: 1, faststart: true });
    const frames = await readFrames(path, { width: 32, height: 32 });
    expect(new Set(frames.map((rgb) => Buffer.from(rgb).toString("base64"))).size).toBeGreaterThan(2);
    expect(temporaryFiles()).toEqual([]);
  });

  test("gives the same bytes for the same latent, also side by side", async () => {
    const [one, two] = await Promise.all([decoded(head(), latentBytes()), decoded(head(), latentBytes())]);
    expect(one.facts?.sha256).toBe(two.facts?.sha256);
  });

  test("refuses another bundle, a wrong shape, a short latent and a size out of range, by name", async () => {
    const wrongShape = { elementType: "ELEMENT_TYPE_F32" as const, shape: [sizes.channels + 1, 3, 6, 8] };
    await expect(decoded(head({ bundleDigest: "other" }))).rejects.toMatchObject({ reason: "BUNDLE_MISMATCH" });
    await expect(decoded(head({ latent: wrongShape }))).rejects.toMatchObject({ reason: "INVALID_FIELD" });
    await expect(decoded(head(), latentBytes().subarray(4))).rejects.toMatchObject({ reason: "INVALID_FIELD" });
    await expect(decoded(head({ width: 4096 }))).rejects.toMatchObject({
      reason: "INVALID_FIELD",
      violations: [expect.objectContaining({ field: "head.width" })],
    });
    expect(temporaryFiles()).toEqual([]);
  });

  test("stops when the caller goes away, leaves nothing and serves the next call", async () => {
    const abort = new AbortController();
    const options = { timeoutMs: TIMEOUT_MS, signal: abort.signal };
    const reading = (async () => {
      const large = head({ width: 1280, height: 720 });
      for await (const answer of peer.bidi("Decode", request([large, latentBytes()]), options)) {
        if (answer.part === "progress") abort.abort();
      }
    })();
    await expect(reading).rejects.toMatchObject({ reason: "CANCELLED" });
    expect((await decoded(head(), latentBytes())).facts?.frameCount).toBe(24);
    await expect.poll(temporaryFiles, { timeout: TIMEOUT_MS }).toEqual([]);
  });
});
