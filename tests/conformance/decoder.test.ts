// The decoder as a process, over its socket, with a tiny random model: what it streams, refuses, and leaves behind.
import { createHash } from "node:crypto";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openBundle } from "@moevie/bundle";
import type { DecodeHead } from "@moevie/contracts";
import { importStarter } from "@moevie/importer";
import { DecoderProcess, TIMEOUT_MS, request, type Answer } from "./decoder-process.ts";
import { probeClip, readFrames } from "../e2e/probe-clip.ts";
import { seeded, writeTinyModel, type TinySizes } from "../parity/tiny.ts";

const folder = mkdtempSync(join(tmpdir(), "moevie-decoder-"));
const runFolder = join(folder, "run");
const LATENT_FRAMES = 3;

let decoder: DecoderProcess;
let digest: string;
let sizes: TinySizes;

beforeAll(async () => {
  sizes = writeTinyModel(join(folder, "model"));
  await importStarter(join(folder, "model"), join(folder, "bundle"));
  ({ digest } = await openBundle(join(folder, "bundle")));
  decoder = await DecoderProcess.start(join(folder, "bundle"), runFolder);
});

afterAll(async () => {
  await decoder.close();
  rmSync(folder, { recursive: true, force: true });
});

function head(changes: Partial<DecodeHead> = {}): DecodeHead {
  const shape = [sizes.channels, LATENT_FRAMES, sizes.pixelHeight / 8, sizes.pixelWidth / 8];
  const latent = { elementType: "ELEMENT_TYPE_F32" as const, shape };
  const clip = { width: 320, height: 256, fps: 24, frameCount: 24, comment: "", colorCorrection: true, saveFrames: "" };
  return { bundleDigest: digest, latent, ...clip, ...changes };
}

function latentBytes(): Buffer {
  const random = seeded(7);
  const count = head().latent?.shape.reduce((product, size) => product * size, 1) ?? 0;
  return Buffer.from(Float32Array.from({ length: count }, () => random()).buffer);
}

const decoded = (...parts: readonly (DecodeHead | Buffer)[]): Promise<Answer> => decoder.decode(...parts);

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
    expect(facts?.color?.castLevels).toBeGreaterThanOrEqual(0);
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
      for await (const answer of decoder.peer.bidi("Decode", request([large, latentBytes()]), options)) {
        if (answer.part === "progress") abort.abort();
      }
    })();
    await expect(reading).rejects.toMatchObject({ reason: "CANCELLED" });
    expect((await decoded(head(), latentBytes())).facts?.frameCount).toBe(24);
    await expect.poll(temporaryFiles, { timeout: TIMEOUT_MS }).toEqual([]);
  });
});
