// Opens the bundle a flag names before any process starts, so that a bad one is refused at once and by name.
import { statSync } from "node:fs";
import { resolve } from "node:path";
import { UsageError } from "./failure.ts";

/** Bundles up to this size are read whole and their hashes compared before they are served. */
const VERIFY_BYTES_MAX = 1024 ** 3;
const SHARDS_MAX = 64;

export interface CheckedBundle {
  readonly folder: string;
  /** Shards there is something to hold for. */
  readonly shardsMax: number;
}

/** Resolves and opens a bundle folder. Throws UsageError when there is no folder, BundleError when it is not sound. */
export async function checkBundle(flag: string, path: string): Promise<CheckedBundle> {
  const folder = resolve(path);
  if (path === "" || statSync(folder, { throwIfNoEntry: false })?.isDirectory() !== true)
    throw new UsageError([{ flag, value: path, allowed: "the folder of a bundle" }]);
  const { isNoiseDenoiser, openBundle } = await import("@moevie/bundle");
  const quick = await openBundle(folder);
  const bytes = quick.manifest.files.reduce((sum, file) => sum + file.bytes, 0);
  const bundle = bytes <= VERIFY_BYTES_MAX ? await openBundle(folder, { verify: true }) : quick;
  await bundle.checkGraphs();
  const { denoiser } = quick.manifest;
  return { folder, shardsMax: isNoiseDenoiser(denoiser) ? SHARDS_MAX : denoiser.experts };
}

/** More shards than experts would leave some with nothing to hold; of whole denoisers there may be any number of copies. */
export function checkShardCount(shardCount: number, bundle: CheckedBundle | undefined): void {
  if (bundle !== undefined && shardCount > bundle.shardsMax)
    throw new UsageError([
      {
        flag: "--shards",
        value: String(shardCount),
        allowed: `1 to ${bundle.shardsMax}: so many the bundle has something for`,
      },
    ]);
}
