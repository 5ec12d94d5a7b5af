// Noise schedules: the sigmas and timesteps of a job, on the grids that checkpoints were published with. Pure.

/**
 * diffusers: linspace(1, 1/1000, N+1) without its last value, shifted, first value kept below 1 by 1e-6 (UniPC of diffusers
 * with flow sigmas). reference: linspace(0.999, 0, N+1) without its last value, shifted (the Wan repository).
 * flow-match-euler: the inclusive grid of diffusers' FlowMatchEuler, shifted twice, with fractional timesteps.
 * explicit: the sigmas given, already shifted.
 */
export type NoiseGrid = (typeof NOISE_GRIDS)[number] | typeof EXPLICIT_GRID;

/** The grid of sigmas that are given. */
export const EXPLICIT_GRID = "explicit";

/** Grids that a number of steps decides. */
export const NOISE_GRIDS = ["diffusers", "reference", "flow-match-euler"] as const;

export function isNoiseGrid(name: string): name is NoiseGrid {
  return name === EXPLICIT_GRID || NOISE_GRIDS.some((grid) => grid === name);
}

export interface NoiseScheduleOptions {
  /** Denoising steps, N. */
  readonly steps: number;
  /** s of f(sigma) = s sigma / (1 + (s - 1) sigma). */
  readonly shift: number;
  readonly grid: NoiseGrid;
  /** For "explicit": N values in (0, 1], falling. */
  readonly sigmas?: readonly number[];
}

export interface NoiseSchedule {
  /** [N + 1], f32 values, falling; the last is 0. */
  readonly sigmas: Float32Array;
  /** [N], 0 to 1000: whole numbers (truncated) but for the flow-match-euler grid. */
  readonly timesteps: Float32Array;
}

const TRAIN_TIMESTEPS = 1000;
/** How far below 1 the first sigma stays: log(1 - sigma) must be finite. */
export const SIGMA_MARGIN = 1e-6;

function linspace(from: number, to: number, count: number): number[] {
  const step = count > 1 ? (to - from) / (count - 1) : 0;
  return Array.from({ length: count }, (_, i) => (i === count - 1 && count > 1 ? to : from + i * step));
}

function shifted(sigma: number, shift: number): number {
  return (shift * sigma) / (1 + (shift - 1) * sigma);
}

function diffusersGrid({ steps, shift }: NoiseScheduleOptions): number[] {
  const sigmas = linspace(1, 1 / TRAIN_TIMESTEPS, steps + 1)
    .slice(0, -1)
    .map((sigma) => shifted(sigma, shift));
  const first = sigmas[0] ?? 0;
  if (Math.abs(first - 1) < SIGMA_MARGIN) sigmas[0] = first - SIGMA_MARGIN;
  return sigmas;
}

function referenceGrid({ steps, shift }: NoiseScheduleOptions): number[] {
  return linspace(0.999, 0, steps + 1)
    .slice(0, -1)
    .map((sigma) => shifted(sigma, shift));
}

function flowMatchEulerGrid({ steps, shift }: NoiseScheduleOptions): number[] {
  // The lower end comes from diffusers' own table, which it shifts with every operation in f32.
  const { fround } = Math;
  const base = fround(1 / TRAIN_TIMESTEPS);
  const smallest = fround(fround(shift * base) / fround(1 + fround((shift - 1) * base)));
  return linspace(TRAIN_TIMESTEPS, smallest * TRAIN_TIMESTEPS, steps).map((timestep) =>
    shifted(timestep / TRAIN_TIMESTEPS, shift),
  );
}

function explicitGrid({ steps, sigmas = [] }: NoiseScheduleOptions): number[] {
  if (sigmas.length !== steps) throw new RangeError(`explicit grid: ${sigmas.length} sigmas, expected ${steps}`);
  for (const [i, sigma] of sigmas.entries()) {
    if (!(sigma > 0 && sigma <= 1) || sigma >= (sigmas[i - 1] ?? 2)) {
      throw new RangeError(`explicit grid: sigma ${i} is ${sigma}, expected falling values in (0, 1]`);
    }
  }
  return [...sigmas];
}

/** Makes the schedule of a job. Throws RangeError for steps below 1, a shift of 0 or less, or sigmas out of order. */
export function noiseSchedule(options: NoiseScheduleOptions): NoiseSchedule {
  if (!Number.isInteger(options.steps) || options.steps < 1)
    throw new RangeError(`steps is ${options.steps}, expected a whole number of 1 or more`);
  if (!(options.shift > 0)) throw new RangeError(`shift is ${options.shift}, expected more than 0`);
  const exact = gridOf(options);
  const sigmas = Float32Array.from([...exact, 0]);
  const timesteps =
    options.grid === "flow-match-euler"
      ? sigmas.slice(0, -1).map((sigma) => sigma * TRAIN_TIMESTEPS)
      : Float32Array.from(exact, (sigma) => Math.trunc(sigma * TRAIN_TIMESTEPS));
  return { sigmas, timesteps };
}

function gridOf(options: NoiseScheduleOptions): number[] {
  switch (options.grid) {
    case "diffusers":
      return diffusersGrid(options);
    case "reference":
      return referenceGrid(options);
    case "flow-match-euler":
      return flowMatchEulerGrid(options);
    case "explicit":
      return explicitGrid(options);
  }
}
