// The newest placement the controllers of this machine decided on, in a file: whoever leads next finishes it.
import { readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { PlacementError, parsePlacement } from "@moevie/placement";
import type { ModelExperts, Placement } from "@moevie/placement";

export interface KeptPlacement extends Placement {
  /** Which of the shards it is for, in its order. */
  readonly members: readonly number[];
}

function fileIn(folder: string): string {
  return join(folder, "placement.json");
}

/** Undefined where there is none that fits the model. */
export async function readKept(folder: string, model: ModelExperts): Promise<KeptPlacement | undefined> {
  try {
    const value = JSON.parse(await readFile(fileIn(folder), "utf8")) as { members?: unknown };
    const placement = parsePlacement(value, model);
    const { members } = value;
    if (!Array.isArray(members) || members.length !== placement.shards.length) return undefined;
    return { ...placement, members: members.map(Number) };
  } catch (thrown) {
    const absent = (thrown as NodeJS.ErrnoException).code === "ENOENT";
    if (absent || thrown instanceof PlacementError || thrown instanceof SyntaxError) return undefined;
    throw thrown;
  }
}

/** Whole or not at all. */
export async function writeKept(folder: string, kept: KeptPlacement): Promise<void> {
  const next = `${fileIn(folder)}.next`;
  await writeFile(next, JSON.stringify(kept));
  await rename(next, fileIn(folder));
}
