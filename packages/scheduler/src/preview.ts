// A small picture of a clip that is not finished: the clean latent the model has in mind, by a linear map to colours. Pure.
import { encodePng } from "./png.ts";
import type { ModelFacts } from "./model-facts.ts";
import type { LatentShape } from "./start-latent.ts";

/** Longest side of a preview; cells are enlarged by a whole factor up to it. */
const PREVIEW_SIDE_PIXELS_MAX = 192;

export interface PreviewInput {
  /** At `sigma`, [channels, frames, height, width]. */
  readonly latent: Float32Array;
  readonly velocity: Float32Array;
  readonly sigma: number;
  readonly shape: LatentShape;
}

/** The middle frame as PNG, one square of pixels for each cell. */
export function previewPng({ latent, velocity, sigma, shape }: PreviewInput, model: ModelFacts): Uint8Array {
  const [channels, frames, height, width] = shape;
  const cells = height * width;
  const frame = Math.floor(frames / 2);
  const rgb = new Uint8Array(cells * 3);
  const { toRgb, toRgbBias } = model.latent;
  for (let cell = 0; cell < cells; cell++) {
    for (let colour = 0; colour < 3; colour++) {
      let value = toRgbBias[colour] ?? 0;
      for (let channel = 0; channel < channels; channel++) {
        const i = (channel * frames + frame) * cells + cell;
        const clean = (latent[i] ?? 0) - sigma * (velocity[i] ?? 0);
        value += clean * (toRgb[channel]?.[colour] ?? 0);
      }
      rgb[cell * 3 + colour] = Math.round(Math.min(Math.max((value + 1) / 2, 0), 1) * 255);
    }
  }
  const factor = Math.max(1, Math.floor(PREVIEW_SIDE_PIXELS_MAX / Math.max(width, height)));
  return encodePng(enlarged(rgb, width, height, factor), width * factor, height * factor);
}

/** Each pixel becomes a square of `factor` by `factor`. */
function enlarged(rgb: Uint8Array, width: number, height: number, factor: number): Uint8Array {
  const out = new Uint8Array(rgb.length * factor * factor);
  for (let y = 0; y < height * factor; y++) {
    for (let x = 0; x < width * factor; x++) {
      const from = (Math.floor(y / factor) * width + Math.floor(x / factor)) * 3;
      out.set(rgb.subarray(from, from + 3), (y * width * factor + x) * 3);
    }
  }
  return out;
}
