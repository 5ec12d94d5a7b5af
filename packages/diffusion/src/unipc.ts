// UniPC, order 2, B(h) = expm1(-h), estimating the clean latent from a flow velocity. Pure.
// Zhao, Bai, Rao, Zhou, Lu: "UniPC: a unified predictor-corrector framework" (2023), as configured for Wan2.2.
// Scalars are f64; latents and estimates are rounded to f32 once per step.
import { SIGMA_MARGIN } from "./noise-schedule.ts";
import { portableLog } from "./portable-math.ts";
import type { Sampler, SamplerState } from "./sampler.ts";

const ORDER = 2;

/** latent = a * base - b * newest - c * (older - newest) - d * (estimate - newest): one row of coefficients a step. */
interface Update {
  readonly base: number;
  readonly newest: number;
  readonly older: number;
  readonly estimate: number;
}

export class UniPcSampler implements Sampler {
  readonly #sigmas: Float64Array;
  #warmUp = 0;
  #order = 0;
  #estimates: Float32Array[] = [];
  #lastLatent: Float32Array | undefined;

  /** `sigmas` [N + 1], the last 0. A first sigma of 1 is taken as just below it: log(1 - sigma) must be finite. */
  constructor(sigmas: Float32Array) {
    this.#sigmas = Float64Array.from(sigmas, (sigma) => (sigma > 1 - SIGMA_MARGIN / 2 ? 1 - SIGMA_MARGIN : sigma));
  }

  step(i: number, latent: Float32Array, velocity: Float32Array): void {
    const sigma = this.#sigma(i);
    const estimate = new Float32Array(latent.length);
    for (let j = 0; j < latent.length; j++) estimate[j] = (latent[j] ?? 0) - sigma * (velocity[j] ?? 0);
    if (this.#lastLatent !== undefined) {
      this.#apply(this.#corrector(i), this.#lastLatent, this.#estimates, estimate, latent);
    }
    this.#estimates = [...this.#estimates, estimate].slice(-ORDER);
    this.#order = Math.min(ORDER, this.#sigmas.length - 1 - i, this.#warmUp + 1);
    const last = latent.slice();
    this.#lastLatent = last;
    if (this.#sigma(i + 1) === 0) latent.set(estimate);
    else this.#apply(this.#predictor(i), last, this.#estimates, estimate, latent);
    this.#warmUp = Math.min(ORDER, this.#warmUp + 1);
  }

  state(): SamplerState {
    return {
      name: "unipc",
      warmUp: this.#warmUp,
      order: this.#order,
      estimates: this.#estimates,
      lastLatent: this.#lastLatent,
    };
  }

  restore(state: SamplerState): void {
    if (state.name !== "unipc") throw new TypeError(`state of ${state.name} given to unipc`);
    this.#warmUp = state.warmUp;
    this.#order = state.order;
    this.#estimates = [...state.estimates];
    this.#lastLatent = state.lastLatent;
  }

  #sigma(i: number): number {
    const sigma = this.#sigmas[i];
    if (sigma === undefined) throw new RangeError(`sigma ${i} of a schedule of ${this.#sigmas.length}`);
    return sigma;
  }

  /** ln(alpha / sigma), alpha = 1 - sigma. */
  #lambda(i: number): number {
    const sigma = this.#sigma(i);
    return portableLog(1 - sigma) - portableLog(sigma);
  }

  /** expm1(-h) from sigma[i] to sigma[i + 1]; with alpha = 1 - sigma it has this closed form. */
  #phi(i: number): number {
    return (this.#sigma(i + 1) - this.#sigma(i)) / (this.#sigma(i) * (1 - this.#sigma(i + 1)));
  }

  /** From sigma[i] to sigma[i + 1] with what is known at i. */
  #predictor(i: number): Update {
    const phi = this.#phi(i);
    const weight = (1 - this.#sigma(i + 1)) * phi;
    const base = this.#sigma(i + 1) / this.#sigma(i);
    if (this.#order < 2) return { base, newest: weight, older: 0, estimate: 0 };
    const h = this.#lambda(i + 1) - this.#lambda(i);
    const r = (this.#lambda(i - 1) - this.#lambda(i)) / h;
    return { base, newest: weight, older: (weight * 0.5) / r, estimate: 0 };
  }

  /** From sigma[i - 1] to sigma[i] once more, now that the estimate at i is known. */
  #corrector(i: number): Update {
    const phi = this.#phi(i - 1);
    const weight = (1 - this.#sigma(i)) * phi;
    const base = this.#sigma(i) / this.#sigma(i - 1);
    if (this.#order < 2) return { base, newest: weight, older: 0, estimate: weight * 0.5 };
    const h = this.#lambda(i) - this.#lambda(i - 1);
    const r = (this.#lambda(i - 2) - this.#lambda(i - 1)) / h;
    const psi1 = phi / -h - 1;
    const psi2 = psi1 / -h - 0.5;
    const b1 = psi1 / phi;
    const b2 = (2 * psi2) / phi;
    const rho1 = (b1 - b2) / (1 - r);
    const rho2 = b1 - rho1;
    return { base, newest: weight, older: (weight * rho1) / r, estimate: weight * rho2 };
  }

  /** `estimates` are those kept so far, newest last; writes `out`. */
  #apply(
    update: Update,
    base: Float32Array,
    estimates: readonly Float32Array[],
    estimate: Float32Array,
    out: Float32Array,
  ): void {
    const newest = estimates.at(-1) ?? estimate;
    const older = estimates.at(-2) ?? newest;
    for (let j = 0; j < out.length; j++) {
      const m = newest[j] ?? 0;
      out[j] =
        update.base * (base[j] ?? 0) -
        update.newest * m -
        update.older * ((older[j] ?? 0) - m) -
        update.estimate * ((estimate[j] ?? 0) - m);
    }
  }
}
