// One command makes a clip: the default one from the starter model, small ones of any shape, the same one again for a seed.
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { CliSession } from "./cli-session.ts";
import { probeClip, readFrames } from "./probe-clip.ts";

interface Generated {
  readonly path: string;
  readonly seed: number;
  readonly stageSeconds: Record<string, number>;
  readonly video: {
    readonly state: string;
    readonly spec: { readonly quality: string; readonly steps: number; readonly guidance: number };
    readonly artefact: { readonly sha256: string; readonly frameCount: number };
  };
}

let session: CliSession;
beforeEach(() => {
  session = new CliSession();
});
afterEach(() => session.close());

async function generate(...args: string[]): Promise<Generated> {
  const { code, stdout, stderr } = await session.run("generate", ...args, "--json");
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  return JSON.parse(stdout) as Generated;
}

describe("generate", () => {
  it("makes the default clip of the starter model and tells path, seed and timings", async () => {
    const { code, stdout, stderr } = await session.run(
      "generate",
      "a golden dog runs along the beach at sunset",
      "--seed",
      "7",
    );
    expect({ code, stderr }).toMatchObject({ code: 0 });
    const [path = "", facts, timings] = stdout.split("\n");
    expect(path).toBe(join(session.work, "moevie-a-golden-dog-runs-along-the-beach-at-7.mp4"));
    expect(facts).toContain("seed 7 · 1280x720, 24 fps, 48 frames");
    expect(timings).toMatch(
      /start [\d.]+ s · .*encode [\d.]+ s · denoise [\d.]+ s · decode [\d.]+ s · .*total [\d.]+ s/,
    );
    // Where there is no terminal: one plain line a stage.
    expect(stderr).toMatch(/^starting: .*\n(.*\n)*denoise · step \d+ of \d+.*\n(.*\n)*decode/m);
    expect(stderr).not.toContain("\u001b");
    const clip = await probeClip(path);
    expect(clip).toMatchObject({
      codec: "h264",
      pixelFormat: "yuv420p",
      width: 1280,
      height: 720,
      fps: 24,
      frameCount: 48,
      faststart: true,
      colour: { primaries: 1, transfer: 1, matrix: 1 },
    });
  });

  it("makes a draft of the starter model with the few steps it is meant for, and another clip than the standard", async () => {
    const small = ["a blue ball bounces", "--seed", "3", "--size", "512x288", "--seconds", "0.5", "--fps", "8"];
    const draft = await generate(...small, "--quality", "draft");
    expect(draft.video.spec).toMatchObject({ quality: "QUALITY_DRAFT", steps: 8, guidance: 1 });
    const standard = await generate(
      ...small,
      "--steps",
      "8",
      "--guidance",
      "1",
      "-o",
      join(session.work, "standard.mp4"),
    );
    expect(standard.video.artefact.sha256).not.toBe(draft.video.artefact.sha256);
  });

  it.each([
    ["256x320", "0.5", "8", 4],
    ["640x384", "1", "30", 30],
    ["272x256", "1.25", "12", 15],
  ])("takes size %s, %s s and %s fps as they are", async (size, seconds, fps, frameCount) => {
    const clip = await generate(
      "a red boat on a lake",
      "--model",
      await session.tinyBundle(),
      "--size",
      size,
      "--seconds",
      seconds,
      "--fps",
      fps,
      "--steps",
      "2",
      "--sampler",
      "euler",
      "--shards",
      "1",
    );
    const facts = await probeClip(clip.path);
    expect(`${facts.width}x${facts.height}`).toBe(size);
    expect(facts).toMatchObject({ fps: Number(fps), frameCount });
    expect(clip.video.artefact.frameCount).toBe(frameCount);
    expect(readdirSync(session.work)).toHaveLength(1);
  });

  it("gives the same frames for a seed twice, on any number of shards, and others for another seed", async () => {
    const flags = ["--model", await session.tinyBundle(), "--size", "256x256", "--seconds", "0.5", "--steps", "4"];
    const clips = [];
    for (const [seed, shards] of [
      ["11", "2"],
      ["11", "2"],
      ["11", "1"],
      ["12", "2"],
    ] as const) {
      clips.push(
        await generate("一只红色的船", ...flags, "--seed", seed, "--shards", shards, "-o", `clip-${clips.length}.mp4`),
      );
    }
    const frames = await Promise.all(clips.map((clip) => readFrames(clip.path, { width: 256, height: 256 })));
    expect(frames[1]).toEqual(frames[0]);
    expect(largestDifference(frames[2] ?? [], frames[0] ?? [])).toBeLessThanOrEqual(1);
    expect(largestDifference(frames[3] ?? [], frames[0] ?? [])).toBeGreaterThan(1);
  });

  it("chooses a seed where none is given, and that seed makes the clip again", async () => {
    const flags = ["--model", await session.tinyBundle(), "--size", "256x256", "--seconds", "0.5", "--steps", "2"];
    const first = await generate("a hill", ...flags);
    expect(first.path).toBe(join(session.work, `moevie-a-hill-${first.seed}.mp4`));
    const again = await generate("a hill", ...flags, "--seed", String(first.seed), "-o", "again.mp4");
    const [a, b] = await Promise.all(
      [first.path, again.path].map((path) => readFrames(path, { width: 256, height: 256 })),
    );
    expect(b).toEqual(a);
    expect(existsSync(first.path)).toBe(true);
  });
});

/** Largest difference of any value of two clips; Infinity when they have not the same shape. */
function largestDifference(a: Uint8Array[], b: Uint8Array[]): number {
  if (a.length !== b.length) return Infinity;
  let largest = 0;
  for (const [index, frame] of a.entries()) {
    const other = b[index] ?? new Uint8Array(0);
    if (other.length !== frame.length) return Infinity;
    for (let at = 0; at < frame.length; at++)
      largest = Math.max(largest, Math.abs((frame[at] ?? 0) - (other[at] ?? 0)));
  }
  return largest;
}
