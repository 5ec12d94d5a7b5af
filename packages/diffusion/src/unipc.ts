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

/** A step that is being done. */
interface Work {
  readonly sigma: number;
  readonly estimate: Float32Array;
  /** The latent after its correction. */
  readonly last: Float32Array;
  /** Estimates before this step's. */
  readonly before: readonly Float32Array[];
  readonly corrector: Update | undefined;
  readonly predictor: Update | undefined;
}

export class UniPcSampler implements Sampler {
  readonly #sigmas: Float64Array;
  #warmUp = 0;
  #order = 0;
  #estimates: Float32Array[] = [];
  #lastLatent: Float32Array | undefined;
  #work: Work | undefined;

  /** `sigmas` [N + 1], the last 0. A first sigma of 1 is taken as just below it: log(1 - sigma) must be finite. */
  constructor(sigmas: Float32Array) {
    this.#sigmas = Float64Array.from(sigmas, (sigma) => (sigma > 1 - SIGMA_MARGIN / 2 ? 1 - SIGMA_MARGIN : sigma));
  }

  step(i: number, latent: Float32Array, velocity: Float32Array, start: number = 0, end: number = latent.length): void {
    const work = (this.#work = start === 0 ? this.#begin(i, latent.length) : this.#work);
    if (work === undefined) throw new RangeError(`a step's range begins at ${start}, none at 0 before it`);
    const { sigma, estimate, last, before, corrector, predictor } = work;
    for (let j = start; j < end; j++) estimate[j] = (latent[j] ?? 0) - sigma * (velocity[j] ?? 0);
    const range = { start, end };
    if (corrector !== undefined) apply(corrector, this.#lastLatent ?? latent, before, estimate, latent, range);
    last.set(latent.subarray(start, end), start);
    if (predictor === undefined) latent.set(estimate.subarray(start, end), start);
    else apply(predictor, last, this.#estimates, estimate, latent, range);
    if (end < latent.length) return;
    this.#lastLatent = last;
    this.#warmUp = Math.min(ORDER, this.#warmUp + 1);
    this.#work = undefined;
  }

  #begin(i: number, values: number): Work {
    const estimate = new Float32Array(values);
    const before = this.#estimates;
    // The corrector is of the order of the step before.
    const corrector = this.#lastLatent && this.#corrector(i);
    this.#estimates = [...before, estimate].slice(-ORDER);
    this.#order = Math.min(ORDER, this.#sigmas.length - 1 - i, this.#warmUp + 1);
    const predictor = this.#sigma(i + 1) === 0 ? undefined : this.#predictor(i);
    return { sigma: this.#sigma(i), estimate, last: new Float32Array(values), before, corrector, predictor };
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
}

/** `estimates` are those kept so far, newest last; writes the range of `out`. */
function apply(
  update: Update,
  base: Float32Array,
  estimates: readonly Float32Array[],
  estimate: Float32Array,
  out: Float32Array,
  { start, end }: { readonly start: number; readonly end: number },
): void {
  const newest = estimates.at(-1) ?? estimate;
  const older = estimates.at(-2) ?? newest;
  for (let j = start; j < end; j++) {
    const m = newest[j] ?? 0;
    out[j] =
      update.base * (base[j] ?? 0) -
      update.newest * m -
      update.older * ((older[j] ?? 0) - m) -
      update.estimate * ((estimate[j] ?? 0) - m);
  }
}
