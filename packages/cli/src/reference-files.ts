// The tensors that `generate` takes and gives so that a clip can be held against another implementation's: checked before anything starts,
// carried to and from the folder its own cluster may use.
import { copyFileSync, mkdirSync, statSync } from "node:fs";
import { join, resolve } from "node:path";
import type { VideoSpec } from "@moevie/contracts";
import { obstacle, putInPlace } from "./clip-file.ts";
import { textFlag, type RawFlags } from "./command.ts";
import { UsageError, type UsageProblem } from "./failure.ts";

/** Paths as the user gave them, resolved. */
export interface ReferenceFiles {
  readonly initialNoise?: string | undefined;
  readonly saveLatents?: string | undefined;
  readonly saveFrames?: string | undefined;
}

/** What each is called in the cluster's folder. */
const NAMES = {
  initialNoise: "initial-noise.safetensors",
  saveLatents: "latents.safetensors",
  saveFrames: "frames.safetensors",
} as const;
const SAVED = ["saveLatents", "saveFrames"] as const;

/** Throws UsageError for a file that is missing and for one that cannot be written. */
export function parseReferenceFiles(flags: RawFlags): ReferenceFiles {
  const problems: UsageProblem[] = [];
  const noise = textFlag(flags, "initialNoise");
  if (noise !== undefined && statSync(resolve(noise), { throwIfNoEntry: false })?.isFile() !== true)
    problems.push({ flag: "--initial-noise", value: noise, allowed: "a safetensors file" });
  const saved: Partial<Record<(typeof SAVED)[number], string>> = {};
  for (const name of SAVED) {
    const path = textFlag(flags, name);
    if (path === undefined) continue;
    const allowed = path === "" ? "the path of a file" : obstacle(resolve(path));
    const flag = name === "saveLatents" ? "--save-latents" : "--save-frames";
    if (allowed !== undefined) problems.push({ flag, value: path, allowed });
    saved[name] = resolve(path);
  }
  if (problems.length > 0) throw new UsageError(problems);
  return { ...(noise !== undefined && { initialNoise: resolve(noise) }), ...saved };
}

/** Whether any of them is asked for. */
export function wantsReference(files: ReferenceFiles): boolean {
  return Object.keys(files).length > 0;
}

/** Puts what goes in into `folder`; the fields of the spec that name it all. */
export function stageReference(files: ReferenceFiles, folder: string): Partial<VideoSpec> {
  if (!wantsReference(files)) return {};
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  if (files.initialNoise !== undefined) copyFileSync(files.initialNoise, join(folder, NAMES.initialNoise));
  return Object.fromEntries(Object.keys(files).map((name) => [name, NAMES[name as keyof typeof NAMES]]));
}

/** Brings what came out of `folder` to where it was asked for, each in place with one rename. */
export function collectReference(files: ReferenceFiles, folder: string): void {
  for (const name of SAVED) {
    const target = files[name];
    if (target === undefined) continue;
    putInPlace(join(folder, NAMES[name]), target);
  }
}
