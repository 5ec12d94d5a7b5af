// A Wan2.2 folder imported and served by real processes, held to diffusers' own pipeline: every step's velocity and latents, and the frames.
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openBundle } from "@moevie/bundle";
import { CliSession } from "../e2e/cli-session.ts";
import { probeClip } from "../e2e/probe-clip.ts";
import { readTensors, writeTensors } from "./safetensors-file.ts";
import { BundleSessions, largestDifference } from "./sessions.ts";
import { runWanInOneProcess } from "./wan-one-process.ts";

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

/** Every tensor of both, bit for bit. */
function expectSame(made: Float32Array | undefined, wanted: Float32Array, what: string): void {
  expect(made?.length, what).toBe(wanted.length);
  expect(
    made!.findIndex((value, i) => !Object.is(value, wanted[i])),
    what,
  ).toBe(-1);
}

test("4 shards, 2 of each expert, and one process give the same bits; what is not to be seen is the bundle's where nothing is asked", async () => {
  const negative = "low quality, blurry";
  const own = join(session.work, "own");
  const imported = await session.run("import", join(HERE, "model"), "--out", own, `--negative-prompt=${negative}`);
  expect(imported).toMatchObject({ code: 0, stderr: "" });
  const noise = readTensors(join(HERE, "goldens/pipeline_main.safetensors")).get("initial_noise")!;
  const [noiseFile, latents, frames] = ["noise", "latents", "frames"].map((name) =>
    join(session.work, `own-${name}.safetensors`),
  ) as [string, string, string];
  writeTensors(noiseFile, new Map([["initial_noise", noise]]), "f32");
  const prompt = "a red fox runs across the fresh snow";
  const length = [
    "--size=64x48",
    "--frames=9",
    "--steps=5",
    "--shift=3",
    "--guidance=4",
    "--guidance-low=3",
    "--shards=4",
  ];
  const files = [`--initial-noise=${noiseFile}`, `--save-latents=${latents}`, `--save-frames=${frames}`];
  const output = `--output=${join(session.work, "own.mp4")}`;
  const ended = await session.run("generate", prompt, `--model=${own}`, ...length, ...files, output, "--json");
  expect(ended, ended.stderr).toMatchObject({ code: 0 });
  const alone = await runWanInOneProcess(new BundleSessions(await openBundle(own)), {
    prompt,
    negative,
    noise,
    schedule: { steps: 5, shift: 3, grid: "diffusers" },
    guidance: 4,
    guidanceLow: 3,
  });
  const steps = readTensors(latents);
  for (const [step, velocity] of alone.velocities.entries()) {
    expectSame(steps.get(`step.${step}.velocity`)?.data, velocity, `velocity of step ${step}`);
    expectSame(steps.get(`step.${step}.latents`)?.data, alone.latents[step]!, `latents of step ${step}`);
  }
  expectSame(readTensors(frames).get("frames")?.data, alone.frames, "frames");
});

test("a distilled variant's own sigmas are used as they are, without guidance", async () => {
  const file = join(bundle, "manifest.json");
  const manifest = JSON.parse(readFileSync(file, "utf8")) as { variants: object };
  const sigmas = [1, 0.9375, 0.8333, 0.625];
  writeFileSync(
    file,
    JSON.stringify({
      ...manifest,
      variants: {
        ...manifest.variants,
        draft: { steps: sigmas.length, guidance: 1, guidanceLow: 1, graphs: "", sigmas },
      },
    }),
  );
  const noise = readTensors(join(HERE, "goldens/pipeline_main.safetensors")).get("initial_noise")!;
  const [noiseFile, latents] = ["noise", "latents"].map((name) => join(session.work, `few-${name}.safetensors`)) as [
    string,
    string,
  ];
  writeTensors(noiseFile, new Map([["initial_noise", noise]]), "f32");
  const asked = [
    "--quality=draft",
    "--size=64x48",
    "--frames=9",
    `--initial-noise=${noiseFile}`,
    `--save-latents=${latents}`,
  ];
  const output = `--output=${join(session.work, "few.mp4")}`;
  const ended = await session.run("generate", "a red fox", `--model=${bundle}`, ...asked, output, "--json");
  expect(ended, ended.stderr).toMatchObject({ code: 0 });
  const alone = await runWanInOneProcess(new BundleSessions(await openBundle(bundle)), {
    prompt: "a red fox",
    negative: "",
    noise,
    schedule: { steps: sigmas.length, shift: 1, grid: "explicit", sigmas },
    guidance: 1,
    guidanceLow: 1,
  });
  const steps = readTensors(latents);
  expect(steps.size).toBe(2 * sigmas.length);
  for (const [step, latent] of alone.latents.entries())
    expectSame(steps.get(`step.${step}.latents`)?.data, latent, `latents of step ${step}`);
});

test("a clip longer than the model is made of windows, and is as long as it was asked", async () => {
  const file = join(bundle, "manifest.json");
  const manifest = JSON.parse(readFileSync(file, "utf8")) as object;
  writeFileSync(file, JSON.stringify({ ...manifest, modelFrames: 17, windows: { overlap: 3, leadIn: 1, period: 1 } }));
  const [clip, frames] = ["long.mp4", "long.safetensors"].map((name) => join(session.work, name)) as [string, string];
  const asked = ["--size=64x48", "--frames=33", "--steps=2", "--guidance=4", "--guidance-low=3", "--seed=3"];
  const output = [`--save-frames=${frames}`, `--output=${clip}`];
  const ended = await session.run("generate", "a red fox", `--model=${bundle}`, ...asked, ...output, "--json");
  expect(ended, ended.stderr).toMatchObject({ code: 0 });
  expect(await probeClip(clip)).toMatchObject({ width: 64, height: 48, fps: 16, frameCount: 33 });
  const { shape, data } = readTensors(frames).get("frames")!;
  expect(shape).toEqual([33, 48, 64, 3]);
  expect(data.every((value) => value >= 0 && value <= 1)).toBe(true);
});
