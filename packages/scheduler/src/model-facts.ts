// What the scheduler needs to know of the bundle it serves, parsed once. No weights, no graphs.
import type { Manifest } from "@moevie/bundle";
import { MoevieError } from "@moevie/contracts";
import type { NoiseGrid, WindowOptions } from "@moevie/diffusion";

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

const GRIDS: readonly NoiseGrid[] = ["diffusers", "reference", "flow-match-euler"];

/** Throws UNSUPPORTED for a grid this build has not. */
export function modelFacts(manifest: Manifest, digest: string): ModelFacts {
  const grid = GRIDS.find((known) => known === manifest.schedule.grid);
  if (grid === undefined) {
    throw new MoevieError(
      "UNSUPPORTED",
      `The bundle's schedule.grid is "${manifest.schedule.grid}"; this build has ${GRIDS.join(", ")}.`,
    );
  }
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
