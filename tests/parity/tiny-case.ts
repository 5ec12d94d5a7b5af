// A tiny bundle of token experts and one latent and text to evaluate it with: what tests of failing and moving shards share.
import { join } from "node:path";
import { openBundle, type Bundle } from "@moevie/bundle";
import { importStarter } from "@moevie/importer";
import type { Dense } from "./safetensors-file.ts";
import { seeded, writeTinyModel } from "./tiny.ts";

export interface TinyCase {
  readonly bundle: Bundle;
  /** [channels, 3, height, width]. */
  readonly latent: Dense;
  /** [tokens, width] of the text. */
  readonly rows: Dense;
}

/** Writes the bundle to `bundle` in `folder`; the same seed gives the same numbers. */
export async function tinyCase(
  folder: string,
  sizes: { readonly layers: number; readonly experts: number },
  seed: number,
): Promise<TinyCase> {
  const { maxTokens, textWidth } = writeTinyModel(join(folder, "source"), { ...sizes, frames: 9 });
  await importStarter(join(folder, "source"), join(folder, "bundle"));
  const bundle = await openBundle(join(folder, "bundle"));
  const random = seeded(seed);
  const dense = (shape: number[]): Dense => ({
    shape,
    data: Float32Array.from({ length: shape.reduce((a, b) => a * b) }, () => 2 * random()),
  });
  const { channels, spatialStride } = bundle.manifest.latent;
  const sides = [bundle.manifest.height, bundle.manifest.width].map((side) => side / spatialStride);
  return { bundle, latent: dense([channels, 3, ...sides]), rows: dense([maxTokens, textWidth]) };
}
