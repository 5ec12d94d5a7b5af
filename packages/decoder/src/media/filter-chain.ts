// The picture path from model frames to clip frames as one FFmpeg filter text. Pure: text in, text out.
// Colour: model frames are full-range RGB; everything after the first filter is limited-range BT.709.

export interface PictureShape {
  readonly width: number;
  readonly height: number;
  readonly fps: number;
}

/** Shorter sides than this cannot carry the motion search's blocks: such frames are blended. */
const MOTION_SIDE_PIXELS_MIN = 32;

/** The smallest even size with the aspect of `from` that covers `to`. */
export function coverSize(from: PictureShape, to: PictureShape): { width: number; height: number } {
  const scale = Math.max(to.width / from.width, to.height / from.height);
  const even = (length: number, least: number): number => Math.max(least, Math.round((length * scale) / 2) * 2);
  return { width: even(from.width, to.width), height: even(from.height, to.height) };
}

/**
 * Frames between frames are made at model size, by motion search where there is room for it. Chosen by looking: a blend
 * shows moving things twice; the exhaustive search leaves the least halo, and at model size costs little.
 */
function rateFilter(from: PictureShape, to: PictureShape): string | undefined {
  if (to.fps === from.fps) return undefined;
  if (to.fps < from.fps) return `fps=${to.fps}`;
  if (Math.min(from.width, from.height) < MOTION_SIDE_PIXELS_MIN)
    return `framerate=fps=${to.fps}:interp_start=0:interp_end=255:scene=100`;
  return `minterpolate=fps=${to.fps}:mi_mode=mci:mc_mode=aobmc:me_mode=bidir:me=esa:mb_size=8:search_param=12:vsbmc=1:scd=fdiff:scd_threshold=10`;
}

/** Frames, around the one at hand, that still places are averaged over: odd. */
const STEADY_FRAMES = 9;
const LEVELS = 255;

/** A pixel is averaged with its neighbours in time while they differ by less than `levels`, and by less than twice that in all. */
function steadyFilter(levels: number): string | undefined {
  if (levels === 0) return undefined;
  const [one, all] = [(levels / LEVELS).toFixed(4), ((2 * levels) / LEVELS).toFixed(4)];
  const planes = [0, 1, 2].map((plane) => `${plane}a=${one}:${plane}b=${all}`).join(":");
  return `atadenoise=${planes}:s=${STEADY_FRAMES}`;
}

/**
 * RGB24 of `from` in, yuv420p of `to` out: still places steadied within `steadyLevels`, then the rate, then cover and crop the
 * middle.
 */
export function filterChain(from: PictureShape, to: PictureShape, steadyLevels: number): string {
  const cover = coverSize(from, to);
  const filters = [
    "scale=in_range=pc:out_color_matrix=bt709:out_range=tv:flags=accurate_rnd+full_chroma_int",
    "format=yuv444p",
    steadyFilter(steadyLevels),
    rateFilter(from, to),
    `scale=${cover.width}:${cover.height}:flags=lanczos+accurate_rnd:in_color_matrix=bt709:in_range=tv:out_color_matrix=bt709:out_range=tv`,
    `crop=${to.width}:${to.height}`,
    "format=yuv420p",
    "setsar=1",
  ];
  return filters.filter((filter) => filter !== undefined).join(",");
}
