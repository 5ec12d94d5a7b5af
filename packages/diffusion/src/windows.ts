// Temporal windows of a latent that is longer than the model was trained for: which there are, cutting one out, and blending what
// the model answers into one velocity. Pure. Source: velocities of overlapping windows averaged at every step, as in MultiDiffusion
// (Bar-Tal et al., 2023), along time.

/** In latent frames. */
export interface WindowOptions {
  /** Latent frames of a window: what the model was trained for. */
  readonly frames: number;
  /** Latent frames that two neighbours share; below `frames`. */
  readonly overlap: number;
  /**
   * Of those, how many at the begin of the later one are not used: a model's first latent frame stands for one frame of the clip,
   * the others for several. Below `overlap`.
   */
  readonly leadIn: number;
  /** After how many latent frames the model's own time begins anew; 1: every window begins at its zero. */
  readonly period: number;
}

export interface LatentWindow {
  /** First latent frame, of `weights.length` ones. */
  readonly start: number;
  /** Where in the model's period that frame lies. */
  readonly origin: number;
  /** Share of the velocity at each of the window's latent frames, 0 to 1. Over all windows the shares of a latent frame sum up to 1. */
  readonly weights: readonly number[];
}

/** The windows over `total` latent frames, in order. At most two have a share in any latent frame, so sums do not depend on order. */
export function latentWindows(
  total: number,
  { frames, overlap, leadIn, period }: WindowOptions,
): readonly LatentWindow[] {
  if (!(overlap >= 1 && overlap < frames && leadIn >= 0 && leadIn < overlap)) {
    throw new RangeError(`windows of ${frames} latent frames: overlap ${overlap}, lead-in ${leadIn}`);
  }
  const starts: number[] = [0];
  for (let last = 0; last + frames < total; starts.push(last)) last = Math.min(last + frames - overlap, total - frames);
  const ramp = overlap - leadIn;
  return starts.map((start, at) => {
    const before = starts[at - 1];
    const after = starts[at + 1];
    const weights = Array.from({ length: Math.min(frames, total) }, (_, index) => {
      const frame = start + index;
      const comes = before === undefined ? 1 : rise(frame - (before + frames), ramp);
      const goes = after === undefined ? 0 : rise(frame - (start + frames), ramp);
      return comes * (1 - goes);
    });
    return { start, origin: start % period, weights };
  });
}

/** The later window's share: 0 before the last `ramp` frames of the earlier one, 1 from its end on; `ahead` is negative before that end. */
function rise(ahead: number, ramp: number): number {
  return Math.min(1, Math.max(0, (ahead + ramp + 1) / (ramp + 1)));
}

/** [channels, frames, height, width]. */
type Shape = readonly [number, number, number, number];

/** The window's part of `latent`, [channels, window frames, height, width]; the latent itself when that is all of it. */
export function cutWindow(latent: Float32Array, shape: Shape, window: LatentWindow): Float32Array {
  const [channels, total, height, width] = shape;
  const { length } = window.weights;
  if (length === total) return latent;
  const area = height * width;
  const part = new Float32Array(channels * length * area);
  for (let channel = 0; channel < channels; channel++) {
    const from = (channel * total + window.start) * area;
    part.set(latent.subarray(from, from + length * area), channel * length * area);
  }
  return part;
}

/**
 * sum += weights * part, part being the window's velocity and `sum` that of the whole, of `shape`. Values of `part` from `start` to
 * before `end`.
 */
export function blendWindow(
  sum: Float32Array,
  shape: Shape,
  window: LatentWindow,
  part: Float32Array,
  start: number = 0,
  end: number = part.length,
): void {
  const [, total, height, width] = shape;
  const { weights } = window;
  const area = height * width;
  for (let from = start, stop: number; from < end; from = stop) {
    const row = Math.floor(from / area);
    stop = Math.min((row + 1) * area, end);
    const weight = weights[row % weights.length] ?? 0;
    if (weight === 0) continue;
    const ahead = (Math.floor(row / weights.length) * (total - weights.length) + window.start) * area;
    for (let i = from; i < stop; i++) sum[ahead + i] = (sum[ahead + i] ?? 0) + weight * (part[i] ?? 0);
  }
}
