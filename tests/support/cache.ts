// The project's cache folder, and things fetched into it once: each appears there whole or not at all.
import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

export const CACHE = process.env["MOEVIE_CACHE"] || fileURLToPath(new URL("../../.cache", import.meta.url));

/**
 * The cache's folder `name`. Where it does not hold the file `proof`, `make` is given a scratch folder and answers the path of the finished
 * folder in it. Throws what `make` throws.
 */
export function cachedFolder(name: string, proof: string, make: (scratch: string) => string): string {
  const folder = join(CACHE, name);
  if (existsSync(join(folder, proof))) return folder;
  mkdirSync(CACHE, { recursive: true });
  const scratch = mkdtempSync(join(CACHE, "fetch-"));
  try {
    const made = make(scratch);
    rmSync(folder, { recursive: true, force: true });
    renameSync(made, folder);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
  return folder;
}
