// Flow-matching Euler: x' = x + (sigma' - sigma) v. Remembers nothing. Pure.
import type { Sampler, SamplerState } from "./sampler.ts";

export class EulerSampler implements Sampler {
  readonly #sigmas: Float32Array;

  /** `sigmas` [N + 1], the last 0. */
  constructor(sigmas: Float32Array) {
    this.#sigmas = sigmas;
  }

  step(i: number, latent: Float32Array, velocity: Float32Array, start: number = 0, end: number = latent.length): void {
    const width = (this.#sigmas[i + 1] ?? NaN) - (this.#sigmas[i] ?? NaN);
    for (let j = start; j < end; j++) latent[j] = (latent[j] ?? 0) + width * (velocity[j] ?? 0);
  }

  state(): SamplerState {
    return { name: "euler", warmUp: 0, order: 0, estimates: [], lastLatent: undefined };
  }

  restore(state: SamplerState): void {
    if (state.name !== "euler") throw new TypeError(`state of ${state.name} given to euler`);
  }
}
