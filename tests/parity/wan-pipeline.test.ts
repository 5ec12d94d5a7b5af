// A Wan2.2 folder imported and served by real processes, held to diffusers' own pipeline: every step's velocity and latents, and the frames.
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { CliSession } from "../e2e/cli-session.ts";
import { probeClip } from "../e2e/probe-clip.ts";
import { readTensors, writeTensors } from "./safetensors-file.ts";
import { largestDifference } from "./sessions.ts";

const HERE = join(import.meta.dirname, "wan");
const STEP = 5e-4;
const FRAMES = 2e-4;
/** Share of bytes that may be a level off. */
const LEVELS_OFF_MAX = 0.005;

interface Recorded {
  readonly prompt: string;
  readonly negative: string;
  readonly height: number;
  readonly width: number;
  readonly frames: number;
  readonly steps: number;
  readonly guidance: number;
  readonly guidance_2: number;
  readonly max_len: number;
  readonly grid: string;
  readonly effective_flow_shift: number;
}

let session: CliSession;
let bundle: string;

beforeAll(async () => {
  session = new CliSession();
  bundle = join(session.work, "bundle");
  const imported = await session.run("import", join(HERE, "model"), "--out", bundle);
  expect(imported).toMatchObject({ code: 0, stderr: "" });
});
afterAll(() => session.close());

/** The bundle with another maximum of tokens: what was recorded used fewer than the model's own. */
function limitTokens(maxTokens: number): void {
  const file = join(bundle, "manifest.json");
  const manifest = JSON.parse(readFileSync(file, "utf8")) as { text: { maxTokens: number } };
  manifest.text.maxTokens = maxTokens;
  writeFileSync(file, JSON.stringify(manifest));
}

test.each(["main", "reference_grid", "no_cfg"])("%s: every step and every frame is diffusers'", async (name) => {
  const recorded = JSON.parse(readFileSync(join(HERE, `goldens/pipeline_${name}.json`), "utf8")) as Recorded;
  const golden = readTensors(join(HERE, `goldens/pipeline_${name}.safetensors`));
  const [noise, latents, frames, clip] = ["noise", "latents", "frames"]
    .map((file) => join(session.work, `${name}-${file}.safetensors`))
    .concat(join(session.work, `${name}.mp4`)) as [string, string, string, string];
  writeTensors(noise, new Map([["initial_noise", golden.get("initial_noise")!]]), "f32");
  limitTokens(recorded.max_len);
  const flags: Record<string, string | number> = {
    model: bundle,
    negative: recorded.negative,
    size: `${recorded.width}x${recorded.height}`,
    frames: recorded.frames,
    steps: recorded.steps,
    shift: recorded.effective_flow_shift,
    guidance: recorded.guidance,
    "guidance-low": recorded.guidance_2,
    grid: recorded.grid,
    "initial-noise": noise,
    "save-latents": latents,
    "save-frames": frames,
    output: clip,
  };
  const written = Object.entries(flags).map(([flag, value]) => `--${flag}=${value}`);
  const ended = await session.run("generate", recorded.prompt, ...written, "--json");
  expect(ended, ended.stderr).toMatchObject({ code: 0 });
  const steps = readTensors(latents);
  expect(steps.size).toBe(2 * recorded.steps);
  for (let step = 0; step < recorded.steps; step++)
    for (const [ours, theirs] of [
      ["velocity", "noise_pred"],
      ["latents", "latents"],
    ]) {
      const [made, wanted] = [steps.get(`step.${step}.${ours}`)!, golden.get(`step.${step}.${theirs}`)!];
      expect(made.shape).toEqual(wanted.shape);
      expect(largestDifference(made.data, wanted.data), `${ours} of step ${step}`).toBeLessThan(STEP);
    }
  const [made, wanted] = [readTensors(frames).get("frames")!, golden.get("frames_float")!];
  expect(made.shape).toEqual(wanted.shape);
  expect(largestDifference(made.data, wanted.data)).toBeLessThan(FRAMES);
  const bytes = golden.get("frames_uint8_round")!.data;
  const off = made.data.filter((value, i) => Math.round(value * 255) !== bytes[i]).length;
  expect(off / bytes.length).toBeLessThan(LEVELS_OFF_MAX);
  expect(await probeClip(clip)).toMatchObject({
    width: recorded.width,
    height: recorded.height,
    fps: 16,
    frameCount: recorded.frames,
  });
});
