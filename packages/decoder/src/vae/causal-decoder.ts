// The video decoder as two graphs on one thread: a latent frame in, one or several pictures out. Caches stay on the thread from one run to
// the next (at 1280x720 those of Wan are gigabytes). Holds no clip: every call of `frames` has caches of its own.
import { MoevieError } from "@moevie/contracts";
import type { OnnxThread, RunRow, TensorView } from "@moevie/runtime";
import { throwIfCancelled } from "../cancel.ts";
import { toRgb } from "../frames/to-rgb.ts";
import type { LatentUpsampler } from "./latent-upsampler.ts";
import { cutTile, joined, tilesOf, type Picture } from "./tiles.ts";

/** A normalised latent, f32 [channels, frames, height, width]. */
export interface Latent {
  readonly values: Float32Array;
  readonly shape: readonly [channels: number, frames: number, height: number, width: number];
}

export interface DecoderGraphs {
  readonly first: Uint8Array;
  readonly next: Uint8Array;
}

export interface LatentPixels {
  /** Pixels a side that one cell of the latent becomes, upsampling included. */
  readonly perCell: number;
  /** Makes latent frames finer before they are decoded. */
  readonly upsampler?: LatentUpsampler | undefined;
  /** Pixels a side of the tiles that pictures are decoded in; 0: whole. */
  readonly tile?: number;
}

/** Microseconds of graph runs so far. */
export interface DecodeTimes {
  vaeUs: number;
  upsampleUs: number;
}

/** Takes one picture as planes [3, height, width]; -1 to 1 is shown, what is outside is clamped. */
export type OnPlanes = (planes: Float32Array) => Promise<void>;

interface PictureSize {
  readonly width: number;
  readonly height: number;
}

const FIRST = "decoder.first";
const NEXT = "decoder.next";

export class CausalDecoder {
  readonly #thread: OnnxThread;
  readonly #pixels: LatentPixels;

  private constructor(thread: OnnxThread, pixels: LatentPixels) {
    this.#thread = thread;
    this.#pixels = pixels;
  }

  /** Loads both graphs on `thread`. Throws BUNDLE_CORRUPT, UNSUPPORTED, DEVICE_MISSING, OUT_OF_MEMORY. */
  static async load(thread: OnnxThread, graphs: DecoderGraphs, pixels: LatentPixels): Promise<CausalDecoder> {
    await thread.load(FIRST, graphs.first);
    await thread.load(NEXT, graphs.next);
    return new CausalDecoder(thread, pixels);
  }

  /**
   * Pictures as RGB bytes [height * perCell, width * perCell, 3] in time order; what every graph run took is added to `times`. `onPlanes` gets
   * each as planes [3, height, width] first.
   */
  async *frames(
    latent: Latent,
    signal: AbortSignal,
    times: DecodeTimes,
    onPlanes?: OnPlanes,
  ): AsyncGenerator<Uint8Array, void> {
    const [, count, height, width] = latent.shape;
    const { perCell } = this.#pixels;
    const [right, down] = [width * perCell, height * perCell];
    const rows: RunRow[] = [];
    try {
      for (let t = 0; t < count; t++) {
        const z = await this.#finer(latentFrame(latent, t), times);
        for (const planes of await this.#chunk(z, t === 0, { width: right, height: down }, rows, signal, times)) {
          await onPlanes?.(planes);
          yield toRgb(planes, 0, right, down);
        }
      }
    } finally {
      for (const row of rows) row.end();
    }
  }

  /** The pictures of one latent frame; `rows` has a row of runs for each of its tiles. */
  async #chunk(
    z: TensorView,
    isFirst: boolean,
    size: PictureSize,
    rows: RunRow[],
    signal: AbortSignal,
    times: DecodeTimes,
  ): Promise<Float32Array[]> {
    const [, , height, width] = z.dims as [number, number, number, number];
    const pixels = size.height / height;
    const tiles = tilesOf(height, width, (this.#pixels.tile ?? 0) / pixels);
    const parts: Picture[][] = [];
    for (const top of tiles.tops)
      for (const left of tiles.lefts) {
        throwIfCancelled(signal);
        const cut = cutTile(z, top, left, tiles.side);
        const row = (rows[parts.length] ??= this.#thread.row());
        const { outputs, computeUs } = await row.timedRun(isFirst ? FIRST : NEXT, { z: cut });
        times.vaeUs += computeUs;
        const [, , cells, across] = cut.dims as [number, number, number, number];
        const pictures = picturesOf(outputs[isFirst ? "frame" : "frames"], across * pixels, cells * pixels);
        parts.push(Array.from(pictures, (planes) => ({ planes, rows: cells * pixels, columns: across * pixels })));
      }
    const frames = parts[0]?.length ?? 0;
    return Array.from({ length: frames }, (_, frame) =>
      joined(
        parts.map((part) => part[frame]!),
        tiles,
        pixels,
        size,
      ),
    );
  }

  async #finer(z: TensorView, times: DecodeTimes): Promise<TensorView> {
    const { upsampler } = this.#pixels;
    if (upsampler === undefined) return z;
    const { fine, computeUs } = await upsampler.finer(z);
    times.upsampleUs += computeUs;
    return fine;
  }
}

/** Latent frame `t` as [1, channels, height, width]. */
function latentFrame({ values, shape: [channels, count, height, width] }: Latent, t: number): TensorView {
  const plane = height * width;
  const out = new Float32Array(channels * plane);
  for (let c = 0; c < channels; c++) {
    const start = (c * count + t) * plane;
    out.set(values.subarray(start, start + plane), c * plane);
  }
  return { type: "float32", dims: [1, channels, height, width], data: out };
}

/** Planes [3, height, width] of each picture. */
function* picturesOf(view: TensorView | undefined, width: number, height: number): Generator<Float32Array, void> {
  const [frames = 0, planes, rows, columns] = view?.dims ?? [];
  if (!(view?.data instanceof Float32Array) || planes !== 3 || rows !== height || columns !== width) {
    throw new MoevieError("BUNDLE_CORRUPT", "The decoder graph answered another shape than its bundle says.", {
      detail: `[${view?.dims.join(", ")}], expected [n, 3, ${height}, ${width}]`,
    });
  }
  const size = 3 * width * height;
  for (let f = 0; f < frames; f++) yield view.data.subarray(f * size, (f + 1) * size);
}
