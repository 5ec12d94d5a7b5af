// The colours a latent stands for, without decoding it: the manifest's linear map, a cell at a time. Pure.
import type { Latent } from "../vae/causal-decoder.ts";

/** Normalised latent to colour in [-1, 1]: [channels][3] and [3]. */
export interface ColourMap {
  readonly toRgb: readonly (readonly number[])[];
  readonly toRgbBias: readonly number[];
}

/** Levels, 0 to 255 where they are colours at all, that latent frame `t` means each cell to have: [3, cells]. */
export function latentColours({ values, shape }: Latent, t: number, map: ColourMap): Float32Array {
  const [channels, frames, height, width] = shape;
  const cells = height * width;
  const colours = new Float32Array(3 * cells);
  for (let colour = 0; colour < 3; colour++) {
    const plane = colours.subarray(colour * cells, (colour + 1) * cells).fill(map.toRgbBias[colour] ?? 0);
    for (let channel = 0; channel < channels; channel++) {
      const weight = map.toRgb[channel]?.[colour] ?? 0;
      const start = (channel * frames + t) * cells;
      for (let cell = 0; cell < cells; cell++) plane[cell]! += weight * (values[start + cell] ?? 0);
    }
    for (let cell = 0; cell < cells; cell++) plane[cell] = (plane[cell]! + 1) * 127.5;
  }
  return colours;
}
