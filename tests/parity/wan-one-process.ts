// A Wan bundle run from prompt to frames in this process, one graph after the other: what the services do, without the services.
import { readFileSync } from "node:fs";
import { Tokenizer } from "@huggingface/tokenizers";
import { createSampler, guide, noiseSchedule, type NoiseScheduleOptions } from "@moevie/diffusion";
import type { NoiseDenoiser } from "@moevie/bundle";
import { f32, i64, type BundleSessions } from "./sessions.ts";
import { decodeClip } from "./decode-clip.ts";
import type { Dense } from "./safetensors-file.ts";

export interface WanRun {
  readonly prompt: string;
  readonly negative: string;
  /** [1, channels, frames, height, width]. */
  readonly noise: Dense;
  readonly schedule: NoiseScheduleOptions;
  readonly guidance: number;
  readonly guidanceLow: number;
}

export interface WanMade {
  /** After guidance, of every step. */
  readonly velocities: readonly Float32Array[];
  readonly latents: readonly Float32Array[];
  /** [F, height, width, 3], 0 to 1. */
  readonly frames: Float32Array;
}

/** Rows [1, maxTokens, width] of a text that needs no cleaning. */
async function textRows(
  { bundle, ...sessions }: { bundle: BundleSessions["bundle"]; run: BundleSessions["run"] },
  text: string,
): Promise<Float32Array> {
  const { maxTokens, width, tokenizer } = bundle.manifest.text;
  const { ids } = new Tokenizer(JSON.parse(readFileSync(bundle.path(tokenizer), "utf8")) as object, {}).encode(text);
  const mask = ids.map(() => 1);
  const { rows } = await sessions.run("text-encoder", {
    ids: i64([1, ids.length], ids),
    mask: i64([1, ids.length], mask),
  });
  const padded = new Float32Array(maxTokens * width);
  padded.set(rows!.data as Float32Array);
  return padded;
}

const shown = (value: number): number => Math.fround((Math.min(1, Math.max(-1, value)) + 1) / 2);

/** Frames [F, height, width, 3], 0 to 1, of a normalised latent. */
async function decoded(sessions: BundleSessions, { shape, data }: Dense): Promise<Float32Array> {
  const [, channels, count, height, width] = shape as [number, number, number, number, number];
  const plane = height * width;
  const latents = Array.from({ length: count }, (_, t) => ({
    shape: [1, channels, height, width],
    data: Float32Array.from({ length: channels * plane }, (_value, i) => {
      const [channel, at] = [Math.floor(i / plane), i % plane];
      return data[(channel * count + t) * plane + at]!;
    }),
  }));
  const frames = await decodeClip(sessions, latents);
  return Float32Array.from(
    frames.flatMap((planes) => {
      const area = planes.length / 3;
      return Array.from(planes, (_, i) => shown(planes[(i % 3) * area + Math.floor(i / 3)]!));
    }),
  );
}

/** Runs the whole pipeline with UniPC. */
export async function runWanInOneProcess(sessions: BundleSessions, run: WanRun): Promise<WanMade> {
  const { text, denoiser } = sessions.bundle.manifest;
  const { gate, graphs } = denoiser as NoiseDenoiser;
  const source = { bundle: sessions.bundle, run: sessions.run.bind(sessions) };
  const contexts = await Promise.all([run.prompt, run.negative].map((one) => textRows(source, one)));
  const schedule = noiseSchedule(run.schedule);
  const sampler = createSampler("unipc", schedule);
  const latent = run.noise.data.slice();
  const velocities: Float32Array[] = [];
  const latents: Float32Array[] = [];
  for (const [step, timestep] of schedule.timesteps.entries()) {
    const level = gate.from.findIndex((from) => timestep >= from);
    const guidance = level === 0 ? run.guidance : run.guidanceLow;
    const evaluate = async (rows: Float32Array): Promise<Float32Array> =>
      (
        await sessions.run(graphs[level]!, {
          latent: f32(run.noise.shape, latent),
          timestep: f32([1], Float32Array.of(timestep)),
          context: f32([1, text.maxTokens, text.width], rows),
        })
      )["velocity"]!.data as Float32Array;
    const velocity = (await evaluate(contexts[0]!)).slice();
    if (guidance > 1) guide(velocity, await evaluate(contexts[1]!), guidance, velocity);
    velocities.push(velocity);
    sampler.step(step, latent, velocity);
    latents.push(latent.slice());
  }
  return { velocities, latents, frames: await decoded(sessions, { shape: run.noise.shape, data: latent }) };
}
