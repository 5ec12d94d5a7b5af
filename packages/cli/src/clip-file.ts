// The file a clip ends up in: named, checked before anything starts, written whole or not at all.
import { createHash } from "node:crypto";
import {
  accessSync,
  closeSync,
  constants,
  copyFileSync,
  createWriteStream,
  openSync,
  renameSync,
  rmSync,
  statSync,
} from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { CommandError, UsageError } from "./failure.ts";

const SLUG_CHARACTERS_MAX = 40;

/** The words of a prompt as a file name: letters and digits of any script, joined by "-". */
export function slugOf(prompt: string): string {
  const words =
    prompt
      .normalize("NFKC")
      .toLowerCase()
      .match(/[\p{L}\p{N}]+/gu) ?? [];
  let slug = "";
  for (const word of words) {
    const longer = slug === "" ? Array.from(word).slice(0, SLUG_CHARACTERS_MAX).join("") : `${slug}-${word}`;
    if (Array.from(longer).length > SLUG_CHARACTERS_MAX) break;
    slug = longer;
  }
  return slug === "" ? "clip" : slug;
}

function partOf(path: string): string {
  return join(dirname(path), `.${basename(path).slice(0, 100)}.${process.pid}.part`);
}

/** Why a file cannot be written at `path`, as what would be allowed instead; undefined when it can. */
export function obstacle(path: string): string | undefined {
  const facts = statSync(path, { throwIfNoEntry: false });
  if (facts?.isDirectory() === true) return "the path of a file; this is a folder";
  if (facts !== undefined && !facts.isFile()) return "the path of a regular file; this is a device, pipe or socket";
  if (facts !== undefined && (facts.mode & 0o222) === 0)
    return "the path of a new file, or of one that may be replaced; this one is read-only";
  const folder = statSync(dirname(path), { throwIfNoEntry: false });
  if (folder === undefined) return `a file in a folder that exists; there is no ${dirname(path)}`;
  if (!folder.isDirectory()) return `a file in a folder; ${dirname(path)} is none`;
  try {
    accessSync(dirname(path), constants.W_OK);
    closeSync(openSync(partOf(path), "wx"));
    rmSync(partOf(path), { force: true });
    return undefined;
  } catch (error) {
    return `a file in a folder that can be written; ${dirname(path)} cannot (${(error as NodeJS.ErrnoException).code ?? "unknown"})`;
  }
}

/** Resolves and proves the target. Throws UsageError for a flag, CommandError for a default name in a bad place. */
export function chooseClipFile(flag: string | undefined, defaultName: string): string {
  const path = resolve(flag === undefined || flag === "" ? defaultName : flag);
  let problem: string | undefined;
  try {
    problem = flag === "" ? "the path of a file" : obstacle(path);
  } catch (error) {
    problem = `a path that can be looked at (${(error as NodeJS.ErrnoException).code ?? "unknown"})`;
  }
  if (problem === undefined) return path;
  if (flag === undefined)
    throw new CommandError(`the clip cannot be written to ${path}; needed: ${problem}; choose another place with -o`);
  throw new UsageError([{ flag: "-o", value: flag, allowed: problem }]);
}

async function writeChecked(
  path: string,
  chunks: AsyncIterable<Uint8Array>,
  sha256: string | undefined,
  signal: AbortSignal,
): Promise<void> {
  const hash = createHash("sha256");
  async function* hashed(): AsyncIterable<Uint8Array> {
    for await (const chunk of chunks) {
      hash.update(chunk);
      yield chunk;
    }
  }
  await pipeline(Readable.from(hashed(), { objectMode: true }), createWriteStream(path, { flags: "wx", flush: true }), {
    signal,
  });
  const digest = hash.digest("hex");
  if (sha256 !== undefined && sha256 !== "" && digest !== sha256)
    throw new CommandError(`the clip arrived damaged: sha256 ${digest}, expected ${sha256}`, "INTERNAL");
}

/** Copies `from` to beside `target`, then gives it that name with one rename. */
export function putInPlace(from: string, target: string): void {
  const part = partOf(target);
  try {
    copyFileSync(from, part, constants.COPYFILE_EXCL);
    renameSync(part, target);
  } finally {
    rmSync(part, { force: true });
  }
}

/**
 * Writes the clip and puts it in place with one rename. With `stagingDir` the slow part happens there, so that a killed
 * process leaves no part of a file beside the target.
 */
export async function saveClip(
  target: string,
  chunks: AsyncIterable<Uint8Array>,
  options: { readonly sha256?: string | undefined; readonly stagingDir?: string; readonly signal: AbortSignal },
): Promise<void> {
  const part = partOf(target);
  const first = options.stagingDir === undefined ? part : join(options.stagingDir, "clip.part");
  try {
    await writeChecked(first, chunks, options.sha256, options.signal);
    if (first === part) renameSync(part, target);
    else putInPlace(first, target);
  } catch (error) {
    // A person knows the target, not the file it is staged in.
    const { path, syscall } = error as NodeJS.ErrnoException;
    if (path === first || path === part || (first === part && syscall === "write"))
      throw Object.assign(error as Error, { path: target });
    throw error;
  } finally {
    rmSync(part, { force: true });
    if (first !== part) rmSync(first, { force: true });
  }
}
