// What the scheduler needs to know of the bundle it serves, parsed once. No weights, no graphs.
import type { Manifest } from "@moevie/bundle";
import { MoevieError } from "@moevie/contracts";
import { EXPLICIT_GRID, NOISE_GRIDS, isNoiseGrid, type NoiseGrid, type WindowOptions } from "@moevie/diffusion";

export interface ModelFacts {
  readonly digest: string;
  /** Frames a second the model makes. */
  readonly frameRate: number;
  readonly latent: {
    readonly channels: number;
    /** Frames of the clip for each latent frame after the first. */
    readonly temporalStride: number;
    /** Pixels a side of a cell, and cells a side of a token. */
    readonly spatialStride: number;
    readonly patch: readonly [height: number, width: number];
    /** Pixels that are always drawn; absent: what is asked. */
    readonly size?: { readonly height: number; readonly width: number };
    /** [channels][3] and [3]: normalised latent to colour in [-1, 1]. */
    readonly toRgb: readonly (readonly number[])[];
    readonly toRgbBias: readonly number[];
  };
  /** How a latent longer than the model's is cut along time. */
  readonly windows: WindowOptions;
  readonly schedule: { readonly shift: number; readonly grid: NoiseGrid };
  /** By quality: the sigmas of the grid "explicit", where there are any. */
  readonly sigmas: Readonly<Record<string, readonly number[] | undefined>>;
}

/** Throws UNSUPPORTED for a grid this build has not. */
export function modelFacts(manifest: Manifest, digest: string): ModelFacts {
  const grid = gridOf(manifest.schedule.grid, "The bundle's schedule.grid");
  const [, ...patch] = manifest.denoiser.patch as [number, number, number];
  const { width, height } = manifest;
  const { channels, temporalStride, spatialStride, toRgb, toRgbBias } = manifest.latent;
  return {
    digest,
    frameRate: manifest.frameRate,
    latent: {
      channels,
      temporalStride,
      spatialStride,
      patch,
      ...(manifest.draws === "trained" && { size: { width, height } }),
      toRgb,
      toRgbBias,
    },
    windows: { frames: (manifest.modelFrames - 1) / temporalStride + 1, ...manifest.windows },
    schedule: { shift: manifest.schedule.shift, grid },
    sigmas: Object.fromEntries(Object.entries(manifest.variants).map(([name, { sigmas }]) => [name, sigmas])),
  };
}

/** `name` as a grid this build has; `what` says whose it is. Throws UNSUPPORTED. */
export function gridOf(name: string, what: string): NoiseGrid {
  if (isNoiseGrid(name)) return name;
  const known = [...NOISE_GRIDS, EXPLICIT_GRID].join(", ");
  throw new MoevieError("UNSUPPORTED", `${what} is "${name}"; this build has ${known}.`);
}
