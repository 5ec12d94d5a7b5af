// Colour correction as a stage between decoder and finishing: pictures in, the same pictures out, a few frames later. Holds as many as it
// looks at, whatever the clip's length.
import { cellMeans, type CellGrid } from "./cell-means.ts";
import { fitCast, type CastFit, type ColourLines } from "./colour-cast.ts";
import { FLICKER_REACH, flickerGains, frameStep, type FrameStep } from "./deflicker.ts";

/** Latent frames that decide the cast of the clip. */
const CAST_LATENT_FRAMES = 3;

export interface ColourSource {
  readonly grid: CellGrid;
  /** Pictures for each latent frame after the first. */
  readonly temporalStride: number;
  readonly latentFrames: number;
  /** Levels [3, cells] that latent frame `t` means, see latentColours; absent where that is not known: then no cast is looked for. */
  readonly meant?: (t: number) => Float32Array;
}

/** What was done to a clip so far. */
export interface ColourReport {
  /** Largest shift of white balance and contrast, in levels; 0: none was needed. */
  castLevels: number;
  /** Pictures whose brightness was evened out. */
  flickerFrames: number;
}

/** `pictures` [height, width, 3] in order, corrected in place. Whole groups of latent frames, as the decoder gives them. */
export async function* correctColour(
  pictures: AsyncIterable<Uint8Array>,
  source: ColourSource,
  report: ColourReport,
): AsyncGenerator<Uint8Array, void> {
  const castPictures = 1 + (Math.min(CAST_LATENT_FRAMES, source.latentFrames) - 1) * source.temporalStride;
  const held: Uint8Array[] = [];
  const seen: Float32Array[] = [];
  const steps: FrameStep[] = [];
  let first = 0;
  let lines: ColourLines | undefined;
  const finish = (rgb: Uint8Array, at: number): Uint8Array => {
    const gains = flickerGains(steps, at);
    if (gains.some((gain) => gain !== 1)) report.flickerFrames++;
    apply(rgb, lines, gains);
    return rgb;
  };
  const decide = (): void => {
    const cast = source.meant && castOf(seen, steps, source.temporalStride, source.meant);
    report.castLevels = cast?.levels ?? 0;
    lines = report.castLevels > 0 ? cast?.lines : undefined;
    seen.length = 0;
  };
  let count = 0;
  let before: Float32Array | undefined;
  for await (const rgb of pictures) {
    const means = cellMeans(rgb, source.grid);
    if (before !== undefined) steps[count] = frameStep(before, means);
    before = means;
    held.push(rgb);
    count++;
    if (count <= castPictures) seen.push(means);
    if (count === castPictures) decide();
    if (count < castPictures) continue;
    while (held.length > FLICKER_REACH) yield finish(held.shift()!, first++);
  }
  if (count < castPictures) decide();
  for (const rgb of held) yield finish(rgb, first++);
}

/** The cast of the pictures seen; a latent frame is held against the mean of the pictures it stands for, unless they are of two scenes. */
function castOf(
  seen: readonly Float32Array[],
  steps: readonly FrameStep[],
  temporalStride: number,
  meant: NonNullable<ColourSource["meant"]>,
): CastFit {
  const [shown, wanted]: [Float32Array[], Float32Array[]] = [[], []];
  for (let t = 0, end = 1; end <= seen.length; t++, end += temporalStride) {
    const start = t === 0 ? 0 : end - temporalStride;
    if (steps.slice(start + 1, end).some(({ cut }) => cut)) continue;
    shown.push(meanOf(seen.slice(start, end)));
    wanted.push(meant(t));
  }
  return fitCast(shown, wanted);
}

function meanOf(frames: readonly Float32Array[]): Float32Array {
  const [first = new Float32Array(0)] = frames;
  return first.map((_, i) => frames.reduce((sum, means) => sum + (means[i] ?? 0), 0) / frames.length);
}

function apply(rgb: Uint8Array, lines: ColourLines | undefined, gains: readonly number[]): void {
  for (let colour = 0; colour < 3; colour++) {
    const { gain, offset } = lines?.[colour] ?? { gain: 1, offset: 0 };
    const flicker = gains[colour] ?? 1;
    if (gain === 1 && offset === 0 && flicker === 1) continue;
    // Clamps and rounds.
    const table = Uint8ClampedArray.from({ length: 256 }, (_, level) => (gain * level + offset) * flicker);
    for (let i = colour; i < rgb.length; i += 3) rgb[i] = table[rgb[i] ?? 0] ?? 0;
  }
}
