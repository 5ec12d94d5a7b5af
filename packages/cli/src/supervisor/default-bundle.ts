// The bundle that is served when none is named: built once from the starter model into the cache, found again by a key
// over what it is made of. Runs the importer as a child; never changes a bundle that is there.
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, utimesSync } from "node:fs";
import { join } from "node:path";
import { CommandError, InterruptedError } from "../failure.ts";
import { LogTail } from "./log-tail.ts";
import { isAlive } from "./process-identity.ts";

/** Bundles kept in the cache; the least lately used go. */
const BUNDLES_KEPT_MAX = 4;

export interface DefaultBundleOptions {
  readonly root: string;
  readonly cacheDir: string;
  readonly node: string;
  readonly nodeArguments: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
  /** Called before the importer runs. */
  readonly onBuild?: () => void;
}

function filesBelow(folder: string): string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .sort();
}

/** Key over the weights (name, size, time) and the text of the importer: either changes, the bundle is built anew. */
function bundleKey(weightsDir: string, importerDir: string): string {
  const hash = createHash("sha256");
  for (const file of filesBelow(weightsDir)) {
    const { size, mtimeMs } = statSync(file);
    hash.update(`${file}\0${size}\0${mtimeMs}\0`);
  }
  for (const file of filesBelow(importerDir))
    if (!/\.test\.[jt]s$/.test(file)) hash.update(file).update("\0").update(readFileSync(file));
  return hash.digest("hex").slice(0, 24);
}

/** Answers the folder of the starter model's bundle, building it if it is not there. */
export async function defaultBundle(options: DefaultBundleOptions): Promise<string> {
  const weightsDir = join(options.root, "packages", "starter-model", "weights");
  const importerDir = join(options.root, "packages", "importer", "src");
  if (!existsSync(weightsDir))
    throw new CommandError(`the starter model's weights are missing: ${weightsDir}`, "BUNDLE_CORRUPT");
  const bundlesDir = join(options.cacheDir, "bundles");
  const target = join(bundlesDir, bundleKey(weightsDir, importerDir));
  if (existsSync(join(target, "manifest.json"))) {
    touch(target);
    return target;
  }
  options.onBuild?.();
  // A neighbour of the target, so that paths relative to the bundle stay true after the rename.
  const scratch = `${target}.${process.pid}`;
  mkdirSync(bundlesDir, { recursive: true });
  removeScratch(bundlesDir, process.pid);
  try {
    await runImporter(options, join(importerDir, "main.ts"), [weightsDir, "--out", scratch]);
    placeBundle(scratch, target);
  } finally {
    removeScratch(bundlesDir, process.pid);
  }
  removeOldBundles(bundlesDir, target);
  return target;
}

/** Marks the bundle as used now; a cache that cannot be written is no failure. */
function touch(folder: string): void {
  const now = new Date();
  try {
    utimesSync(folder, now, now);
  } catch {
    return;
  }
}

/** One rename; when another process was faster, its bundle is the same one. */
function placeBundle(scratch: string, target: string): void {
  try {
    renameSync(scratch, target);
  } catch (error) {
    if (!existsSync(join(target, "manifest.json"))) throw error;
  }
}

/** Removes half-built bundles of this process and of processes that are gone. */
function removeScratch(bundlesDir: string, ownPid: number): void {
  for (const name of readdirSync(bundlesDir)) {
    const pid = /^\.?[0-9a-f]{24}\.(\d+)/.exec(name)?.[1];
    if (pid !== undefined && (Number(pid) === ownPid || !isAlive(pid)))
      rmSync(join(bundlesDir, name), { recursive: true, force: true });
  }
}

function removeOldBundles(bundlesDir: string, current: string): void {
  const others = readdirSync(bundlesDir)
    .map((name) => join(bundlesDir, name))
    .filter((path) => path !== current && /[/\\][0-9a-f]{24}$/.test(path))
    .map((path) => ({ path, usedMs: statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0 }))
    .sort((a, b) => b.usedMs - a.usedMs);
  for (const { path } of others.slice(BUNDLES_KEPT_MAX - 1)) rmSync(path, { recursive: true, force: true });
}

/** Runs the importer to its end. Throws CommandError with its last line, or InterruptedError. */
async function runImporter(options: DefaultBundleOptions, entry: string, args: readonly string[]): Promise<void> {
  const tail = new LogTail();
  const child = spawn(options.node, [...options.nodeArguments, entry, ...args], {
    // No folder of anybody's is this child's to remove.
    env: { ...options.environment, MOEVIE_RUN_DIR: "" },
    stdio: ["ignore", "pipe", "pipe", "pipe"],
    detached: true,
  });
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding("utf8");
    stream?.on("data", (text: string) => tail.push(text));
  }
  const abort = (): void => void child.kill("SIGKILL");
  options.signal.addEventListener("abort", abort, { once: true });
  if (options.signal.aborted) abort();
  const code = await new Promise<number | string>((resolve) => {
    child.on("error", (error) => resolve(error.message));
    child.on("close", (exit, signal) => resolve(exit ?? signal ?? "unknown"));
  });
  options.signal.removeEventListener("abort", abort);
  tail.end();
  if (options.signal.aborted) throw new InterruptedError();
  if (code !== 0)
    throw new CommandError(
      `building the starter model's bundle failed (${code}): ${tail.lastMessage() ?? tail.lastLine() ?? "no output"}`,
      "BUNDLE_CORRUPT",
    );
}
