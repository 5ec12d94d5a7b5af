// DPM++ (2M), midpoint, estimating the clean latent from a flow velocity. Pure.
// Lu, Zhou, Bao, Chen, Li, Zhu (2022), arXiv 2211.01095, algorithm 2: second order, multistep; the Wan repository's other sampler.
// Scalars are f64; latents and estimates are rounded to f32 once per step.
import { portableLog } from "./portable-math.ts";
import type { Sampler, SamplerState } from "./sampler.ts";

/** latent = base * latent + newest * m0 + difference * (m0 - m1): one row of coefficients a step. */
interface Update {
  readonly base: number;
  readonly newest: number;
  readonly difference: number;
}

export class DpmPpSampler implements Sampler {
  readonly #sigmas: Float32Array;
  /** Clean-latent estimate of the last step. */
  #last: Float32Array | undefined;
  /** Of the step that is being done. */
  #estimate = new Float32Array(0);

  /** `sigmas` [N + 1], the last 0. */
  constructor(sigmas: Float32Array) {
    this.#sigmas = sigmas;
  }

  step(i: number, latent: Float32Array, velocity: Float32Array, start: number = 0, end: number = latent.length): void {
    if (start === 0) this.#estimate = new Float32Array(latent.length);
    const [sigma, estimate, last] = [this.#sigma(i), this.#estimate, this.#last];
    const { base, newest, difference } = this.#update(i);
    for (let j = start; j < end; j++) {
      const x = latent[j] ?? 0;
      const m = (estimate[j] = Math.fround(x - sigma * (velocity[j] ?? 0)));
      latent[j] = base * x + newest * m + difference * (m - (last?.[j] ?? m));
    }
    if (end === latent.length) this.#last = estimate;
  }

  state(): SamplerState {
    const estimates = this.#last === undefined ? [] : [this.#last];
    return { name: "dpmpp", warmUp: estimates.length, order: 0, estimates, lastLatent: undefined };
  }

  restore(state: SamplerState): void {
    if (state.name !== "dpmpp") throw new TypeError(`state of ${state.name} given to dpmpp`);
    this.#last = state.estimates.at(-1);
  }

  #sigma(i: number): number {
    const sigma = this.#sigmas[i];
    if (sigma === undefined) throw new RangeError(`sigma ${i} of a schedule of ${this.#sigmas.length}`);
    return sigma;
  }

  /** ln(alpha / sigma), alpha = 1 - sigma; -Infinity at sigma 1. */
  #lambda(i: number): number {
    const sigma = this.#sigma(i);
    return sigma === 1 ? -Infinity : portableLog(1 - sigma) - portableLog(sigma);
  }

  /** Second order from the second step on; the last step, to sigma 0, answers its estimate. */
  #update(i: number): Update {
    const [from, to] = [this.#sigma(i), this.#sigma(i + 1)];
    // -alpha' expm1(-h) with alpha = 1 - sigma.
    const newest = (from - to) / from;
    const base = to / from;
    if (this.#last === undefined || to === 0) return { base, newest, difference: 0 };
    const h = this.#lambda(i + 1) - this.#lambda(i);
    const before = this.#lambda(i) - this.#lambda(i - 1);
    return { base, newest, difference: (newest * 0.5 * h) / before };
  }
}
