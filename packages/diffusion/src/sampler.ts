// Samplers: how a latent goes from one sigma to the next given a velocity. Policy by name here, one file per update rule. Pure.
import { DpmPpSampler } from "./dpmpp.ts";
import { EulerSampler } from "./euler.ts";
import type { NoiseSchedule } from "./noise-schedule.ts";
import { UniPcSampler } from "./unipc.ts";

export const SAMPLERS = ["unipc", "dpmpp", "euler"] as const;
export type SamplerName = (typeof SAMPLERS)[number];

/** Everything a sampler remembers between two steps; plain data, so that a checkpoint can hold it. */
export interface SamplerState {
  readonly name: SamplerName;
  /** Steps that may already lean on history, capped at the order. */
  readonly warmUp: number;
  /** Order of the step before. */
  readonly order: number;
  /** Clean-latent estimates of the last steps, newest last, each of the latent's length. */
  readonly estimates: readonly Float32Array[];
  /** The latent the last step started from, after its correction. */
  readonly lastLatent: Float32Array | undefined;
}

export interface Sampler {
  /**
   * Step i of the schedule: `latent` at sigma[i] becomes, in place, the latent at sigma[i + 1]. Steps go in order. One may be done
   * in ranges, from `start` to before `end`, that follow one another up to the last value: the bits are the same.
   */
  step(i: number, latent: Float32Array, velocity: Float32Array, start?: number, end?: number): void;
  /** What is remembered; its arrays are never written to again. */
  state(): SamplerState;
  /** Goes on from a state of the same sampler and schedule, with bit-identical results; the state's arrays are only read. */
  restore(state: SamplerState): void;
}

/** Makes a sampler for one job. */
export function createSampler(name: SamplerName, schedule: NoiseSchedule): Sampler {
  switch (name) {
    case "unipc":
      return new UniPcSampler(schedule.sigmas);
    case "dpmpp":
      return new DpmPpSampler(schedule.sigmas);
    case "euler":
      return new EulerSampler(schedule.sigmas);
  }
}
