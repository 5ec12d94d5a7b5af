// Flicker of a clip: brightness that jumps from frame to frame and comes back. Measured between neighbours by the middle cell, so that
// what moves through the picture does not count; smoothed over five frames, so that a fade stays a fade. Pure.
import { medianOf } from "./cell-means.ts";

/** Frames on either side that the smoothing looks at. */
export const FLICKER_REACH = 2;
/**
 * Weights of the neighbours at distance 1, 2, …, on either side, by how far both sides reach; a frame's own is what is left to 1. Swings of two frames
 * vanish, and with the full reach those of four; what changes evenly passes as it is.
 */
const KERNELS: readonly (readonly number[])[] = [[], [1 / 4], [2 / 8, 1 / 8]];
/** Darker cells are too coarse in bytes to tell a ratio. */
const LEVEL_MIN = 16;
/** Half a level of mid-grey: a smaller swing cannot be seen, and a byte hardly holds it. */
const SWING_MIN = 0.004;
/** A picture that turns brighter or darker by more than this at once is meant: a light goes on, a scene ends. */
const STEP_MAX = Math.log(1.3);
/** Cells that change by more than this many levels, beyond what all do … */
const CUT_LEVELS = 32;
/** … in more than this share of the picture are another scene. */
const CUT_SHARE = 0.5;

/** Standard error of a middle value, over its middle distance ÷ √count, where values spread normally: 1.253 · 1.483. */
const ERROR_OF_MEDIAN = 1.858;

/** How frame `now` is brighter than the one before it. */
export interface FrameStep {
  /** Logarithms of the gain, red, green, blue. */
  readonly logGains: readonly number[];
  /** How far off each of them may well be: in rain every cell says something else. */
  readonly doubts: readonly number[];
  /** `now` is of another scene. */
  readonly cut: boolean;
}

/** `before` and `now`: mean levels [3, cells]. */
export function frameStep(before: Float32Array, now: Float32Array): FrameStep {
  const cells = now.length / 3;
  const measured = [0, 1, 2].map((colour) => {
    const [start, end] = [colour * cells, (colour + 1) * cells];
    return logGain(before.subarray(start, end), now.subarray(start, end));
  });
  const logGains = measured.map(({ log }) => log);
  let changed = 0;
  for (let cell = 0; cell < cells; cell++) {
    const change = logGains.map((log, colour) => {
      const at = colour * cells + cell;
      return Math.abs((now[at] ?? 0) - (before[at] ?? 0) * Math.exp(log));
    });
    if (Math.max(...change) > CUT_LEVELS) changed++;
  }
  const cut = changed > CUT_SHARE * cells || logGains.some((log) => Math.abs(log) > STEP_MAX);
  return { logGains, doubts: measured.map(({ doubt }) => doubt), cut };
}

/** The middle of the cells' ratios, and twice its standard error. */
function logGain(before: Float32Array, now: Float32Array): { log: number; doubt: number } {
  const ratios = new Float32Array(now.length);
  let count = 0;
  for (let cell = 0; cell < now.length; cell++) {
    const [was, is] = [before[cell] ?? 0, now[cell] ?? 0];
    if (was >= LEVEL_MIN && is >= LEVEL_MIN) ratios[count++] = Math.log(is / was);
  }
  if (count < now.length / 4) return { log: 0, doubt: 0 };
  const known = ratios.subarray(0, count);
  const log = medianOf(known);
  const distance = medianOf(known.map((ratio) => Math.abs(ratio - log)));
  return { log, doubt: (2 * ERROR_OF_MEDIAN * distance) / Math.sqrt(count) };
}

/**
 * Gains [3] for frame `at` of the neighbouring `steps`: steps[i] leads from frame i - 1 to frame i, and those within FLICKER_REACH of
 * `at` are there. Frames beyond a cut, or beyond either end, do not count.
 */
export function flickerGains(steps: readonly FrameStep[], at: number): readonly [number, number, number] {
  const logs = [0, 1, 2].map((colour) => logSwing(steps, at, colour));
  return [Math.exp(logs[0]!), Math.exp(logs[1]!), Math.exp(logs[2]!)];
}

/** Logarithm of the gain; 0 where there is no swing to tell. */
function logSwing(steps: readonly FrameStep[], at: number, colour: number): number {
  let [sum, ahead, behind, doubt] = [0, 0, 0, SWING_MIN];
  const kernel = KERNELS[reachOf(steps, at)] ?? [];
  for (const [i, weight] of kernel.entries()) {
    const [into, out] = [steps[at + i + 1], steps[at - i]];
    ahead += into?.logGains[colour] ?? 0;
    behind -= out?.logGains[colour] ?? 0;
    doubt = Math.max(doubt, into?.doubts[colour] ?? 0, out?.doubts[colour] ?? 0);
    sum += weight * (ahead + behind);
  }
  return Math.abs(sum) < doubt ? 0 : sum;
}

/** Frames of the same scene that there are on both sides, at most FLICKER_REACH: looking to one side alone would bend a fade. */
function reachOf(steps: readonly FrameStep[], at: number): number {
  const joined = (step: FrameStep | undefined): boolean => step !== undefined && !step.cut;
  let reach = 0;
  while (reach < FLICKER_REACH && joined(steps[at + reach + 1]) && joined(steps[at - reach])) reach++;
  return reach;
}
