// What the scheduler needs to know of the bundle it serves, parsed once. No weights, no graphs.
import type { Manifest } from "@moevie/bundle";
import { MoevieError } from "@moevie/contracts";
import { NOISE_GRIDS, type NoiseGrid, type WindowOptions } from "@moevie/diffusion";

export interface ModelFacts {
  readonly digest: string;
  /** Frames a second the model makes. */
  readonly frameRate: number;
  readonly latent: {
    readonly channels: number;
    /** Frames of the clip for each latent frame after the first. */
    readonly temporalStride: number;
    /** Cells, not pixels. */
    readonly height: number;
    readonly width: number;
    /** [channels][3] and [3]: normalised latent to colour in [-1, 1]. */
    readonly toRgb: readonly (readonly number[])[];
    readonly toRgbBias: readonly number[];
  };
  /** How a latent longer than the model's is cut along time. */
  readonly windows: WindowOptions;
  readonly schedule: { readonly shift: number; readonly grid: NoiseGrid };
}

/** Throws UNSUPPORTED for a grid this build has not. */
export function modelFacts(manifest: Manifest, digest: string): ModelFacts {
  const grid = gridOf(manifest.schedule.grid, "The bundle's schedule.grid");
  const { channels, temporalStride, spatialStride, toRgb, toRgbBias } = manifest.latent;
  return {
    digest,
    frameRate: manifest.frameRate,
    latent: {
      channels,
      temporalStride,
      height: manifest.height / spatialStride,
      width: manifest.width / spatialStride,
      toRgb,
      toRgbBias,
    },
    windows: { frames: (manifest.modelFrames - 1) / temporalStride + 1, ...manifest.windows },
    schedule: { shift: manifest.schedule.shift, grid },
  };
}

/** `name` as a grid this build has; `what` says whose it is. Throws UNSUPPORTED. */
export function gridOf(name: string, what: string): NoiseGrid {
  const grid = NOISE_GRIDS.find((known) => known === name);
  if (grid !== undefined) return grid;
  throw new MoevieError("UNSUPPORTED", `${what} is "${name}"; this build has ${NOISE_GRIDS.join(", ")}.`);
}
