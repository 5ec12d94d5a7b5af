// Encoding with the real FFmpeg: how it ends when it cannot go on. What the clips are is in tests/conformance.
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { encodeClip, type ClipEncoding } from "./encode-clip.ts";
import { privateFile } from "./private-file.ts";

const folder = mkdtempSync(join(tmpdir(), "moevie-encode-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const encoding = (path: string, changes: Partial<ClipEncoding> = {}): ClipEncoding => ({
  path,
  from: { width: 64, height: 48, fps: 8 },
  to: { width: 256, height: 256, fps: 24 },
  frameCount: 24,
  comment: "",
  steadyLevels: 10,
  encoder: { device: "cpu", threads: 1 },
  signal: new AbortController().signal,
  ...changes,
});

async function* noise(count: number): AsyncGenerator<Uint8Array, void> {
  for (let frame = 0; frame < count; frame++) {
    yield Uint8Array.from({ length: 64 * 48 * 3 }, (_, i) => (i * 7919 + frame * 104729 + ((i * i) % 251) * 31) & 255);
  }
}

async function* failing(): AsyncGenerator<Uint8Array, void> {
  yield* noise(2);
  throw new Error("gone");
}

const run = async (frames: AsyncIterable<Uint8Array>, clip: ClipEncoding): Promise<void> => {
  for await (const encoded of encodeClip(frames, clip)) void encoded;
};

test("a cancelled clip stops at the next frame and leaves no file", async () => {
  const abort = new AbortController();
  let taken = 0;
  const cancelled = async (): Promise<void> => {
    await using file = await privateFile(folder, "clip.mp4");
    for await (const frames of encodeClip(noise(9), encoding(file.path, { signal: abort.signal }))) {
      void frames;
      taken++;
      if (taken === 3) abort.abort();
    }
  };
  await expect(cancelled()).rejects.toMatchObject({ reason: "CANCELLED" });
  expect(taken).toBe(3);
  expect(readdirSync(folder)).toEqual([]);
});

test("a source that fails passes its failure on", async () => {
  await expect(run(failing(), encoding(join(folder, "f.mp4")))).rejects.toThrow("gone");
  rmSync(join(folder, "f.mp4"));
});

test("a full disk is DISK_FULL", async () => {
  await expect(run(noise(80), encoding("/dev/full", { frameCount: 240 }))).rejects.toMatchObject({
    reason: "DISK_FULL",
  });
});

test("a GPU that does not encode is told of, and the clip is encoded on the CPU", async () => {
  const why: string[] = [];
  const encoder = { device: "cuda:0", threads: 1, onCpu: (text: string) => why.push(text) };
  await run(noise(9), encoding(join(folder, "cpu.mp4"), { encoder }));
  expect(why).toEqual([expect.stringMatching(/nvenc|H\.264 encoder/)]);
  rmSync(join(folder, "cpu.mp4"));
});

test("no frames at all is an error, not an empty clip", async () => {
  await expect(run(noise(0), encoding(join(folder, "none.mp4")))).rejects.toMatchObject({ reason: "INTERNAL" });
  rmSync(join(folder, "none.mp4"));
});
