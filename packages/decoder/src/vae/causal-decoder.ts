// The video decoder as two graphs on one thread: a latent frame in, one or several pictures out, caches carried between.
// Holds no clip: every call of `frames` has caches of its own.
import { MoevieError } from "@moevie/contracts";
import type { OnnxThread, TensorView } from "@moevie/runtime";
import { throwIfCancelled } from "../cancel.ts";
import { toRgb } from "../frames/to-rgb.ts";

/** A normalised latent, f32 [channels, frames, height, width]. */
export interface Latent {
  readonly values: Float32Array;
  readonly shape: readonly [channels: number, frames: number, height: number, width: number];
}

export interface DecoderGraphs {
  readonly first: Uint8Array;
  readonly next: Uint8Array;
}

const FIRST = "decoder.first";
const NEXT = "decoder.next";

export class CausalDecoder {
  readonly #thread: OnnxThread;
  readonly #spatialStride: number;

  private constructor(thread: OnnxThread, spatialStride: number) {
    this.#thread = thread;
    this.#spatialStride = spatialStride;
  }

  /** Loads both graphs on `thread`. Throws BUNDLE_CORRUPT, UNSUPPORTED, DEVICE_MISSING, OUT_OF_MEMORY. */
  static async load(thread: OnnxThread, graphs: DecoderGraphs, spatialStride: number): Promise<CausalDecoder> {
    await thread.load(FIRST, graphs.first);
    await thread.load(NEXT, graphs.next);
    return new CausalDecoder(thread, spatialStride);
  }

  /** Pictures as RGB bytes [height * stride, width * stride, 3] in time order; `spent` is told the microseconds of every graph run. */
  async *frames(
    latent: Latent,
    signal: AbortSignal,
    spent: (computeUs: number) => void,
  ): AsyncGenerator<Uint8Array, void> {
    const [channels, count, height, width] = latent.shape;
    let caches: Record<string, TensorView> = {};
    for (let t = 0; t < count; t++) {
      throwIfCancelled(signal);
      const z: TensorView = { type: "float32", dims: [1, channels, height, width], data: latentFrame(latent, t) };
      const { outputs, computeUs } = await this.#thread.timedRun(t === 0 ? FIRST : NEXT, { z, ...caches });
      spent(computeUs);
      caches = carried(outputs);
      yield* pictures(outputs[t === 0 ? "frame" : "frames"], width * this.#spatialStride, height * this.#spatialStride);
    }
  }
}

/** [channels, height, width] of latent frame `t`. */
function latentFrame({ values, shape: [channels, count, height, width] }: Latent, t: number): Float32Array {
  const plane = height * width;
  const out = new Float32Array(channels * plane);
  for (let c = 0; c < channels; c++) {
    const start = (c * count + t) * plane;
    out.set(values.subarray(start, start + plane), c * plane);
  }
  return out;
}

/** cache_out.N of one run are cache.N of the next. */
function carried(outputs: Readonly<Record<string, TensorView>>): Record<string, TensorView> {
  const caches: Record<string, TensorView> = {};
  for (const [name, view] of Object.entries(outputs))
    if (name.startsWith("cache_out.")) caches[name.replace("cache_out.", "cache.")] = view;
  return caches;
}

function* pictures(view: TensorView | undefined, width: number, height: number): Generator<Uint8Array, void> {
  const [frames = 0, planes, rows, columns] = view?.dims ?? [];
  if (!(view?.data instanceof Float32Array) || planes !== 3 || rows !== height || columns !== width) {
    throw new MoevieError("BUNDLE_CORRUPT", "The decoder graph answered another shape than its bundle says.", {
      detail: `[${view?.dims.join(", ")}], expected [n, 3, ${height}, ${width}]`,
    });
  }
  for (let f = 0; f < frames; f++) yield toRgb(view.data, f * 3 * width * height, width, height);
}
