// Puts an imported model's graphs and manifest into a bundle folder, which appears under its final name complete or not at all. The weights
// stay where they are: the manifest says where, relative to the bundle.
import { createHash, randomUUID } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, readFile, readdir, realpath, rename, rm, stat, writeFile } from "node:fs/promises";
import { basename, dirname, join, relative, resolve } from "node:path";
import { ConfigFileError } from "./config-file.ts";
import type { GraphBuilder } from "./graph-builder.ts";

/** Name under which a bundle's graphs and manifest speak of the folder of weights. */
export const ROOT = "weights";

/** Told of bytes read for their hash, of all that will be. */
export type OnRead = (bytes: number, total: number) => void;

export type ImportedModel = {
  readonly graphs: readonly GraphBuilder[];
  /** Files the bundle needs, by their paths inside the folder of weights. */
  readonly files: readonly string[];
  /** Everything of the manifest that is not about files. */
  readonly manifest: object;
};

export type WriteOptions = {
  /** Whether a file is read in full for its hash; else only its size is kept. */
  readonly isHashed: (path: string) => boolean;
  readonly onRead?: OnRead | undefined;
};

export type WrittenBundle = {
  readonly folder: string;
  /** Bytes written into the bundle, and bytes of weights it names. */
  readonly bytesWritten: number;
  readonly bytesNamed: number;
};

async function sha256Of(file: string, onChunk: (bytes: number) => void): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(file, { highWaterMark: 1 << 20 })) {
    hash.update(chunk as Buffer);
    onChunk((chunk as Buffer).length);
  }
  return hash.digest("hex");
}

async function describeFiles(folder: string, files: readonly string[], options: WriteOptions): Promise<FileFacts[]> {
  const sized = await Promise.all(files.map(async (path) => ({ path, bytes: (await stat(join(folder, path))).size })));
  const total = sized.reduce((sum, { path, bytes }) => sum + (options.isHashed(path) ? bytes : 0), 0);
  let read = 0;
  const described: FileFacts[] = [];
  // One after the other: two streams from one disk are slower than one.
  for (const { path, bytes } of sized) {
    const named = { path: `${ROOT}/${path}`, bytes };
    if (!options.isHashed(path)) {
      described.push(named);
      continue;
    }
    const sha256 = await sha256Of(join(folder, path), (more) => options.onRead?.((read += more), total));
    described.push({ ...named, sha256 });
  }
  return described;
}

type FileFacts = { readonly path: string; readonly bytes: number; readonly sha256?: string };

/** Whether `target` holds the same bundle: the manifest, and graphs that nobody damaged since. */
async function isThere(scratch: string, target: string, manifest: string): Promise<boolean> {
  const existing = await readFile(join(target, "manifest.json"), "utf8").catch(() => undefined);
  if (existing !== manifest) return false;
  for (const name of await readdir(join(scratch, "graphs"))) {
    const [made, kept] = await Promise.all(
      [scratch, target].map((folder) => readFile(join(folder, "graphs", name)).catch(() => Buffer.alloc(0))),
    );
    if (kept === undefined || made?.equals(kept) !== true) return false;
  }
  return true;
}

/** Puts the finished `scratch` under `target`; a folder already there is replaced unless it holds the same. */
async function publish(scratch: string, target: string, manifest: string): Promise<void> {
  if (await isThere(scratch, target, manifest)) return;
  const old = `${scratch}.old`;
  const moved = await rename(target, old).then(
    () => true,
    () => false,
  );
  try {
    await rename(scratch, target);
  } catch (cause) {
    const winner = await readFile(join(target, "manifest.json"), "utf8").catch(() => undefined);
    if (winner !== manifest) {
      if (moved) await rename(old, target);
      throw cause;
    }
  }
  if (moved) await rm(old, { recursive: true, force: true });
}

/** The folder of a model as its real path. Throws ConfigFileError when it is missing. */
export async function modelFolder(folder: string): Promise<string> {
  return realpath(folder).catch(() => {
    throw new ConfigFileError(folder, "is missing");
  });
}

/** Writes `model`, whose weights lie in `folder` (a real path), as the bundle folder `outDir`, made, or replaced when it differs. */
export async function writeBundle(
  folder: string,
  outDir: string,
  model: ImportedModel,
  options: WriteOptions,
): Promise<WrittenBundle> {
  const parent = dirname(resolve(outDir));
  await mkdir(parent, { recursive: true });
  const target = join(await realpath(parent), basename(resolve(outDir)));
  const scratch = join(dirname(target), `.${basename(target)}.${randomUUID()}`);
  try {
    await mkdir(join(scratch, "graphs"), { recursive: true });
    const graphs: Record<string, object> = {};
    const made: FileFacts[] = [];
    for (const graph of model.graphs) {
      const bytes = graph.encode();
      const path = `graphs/${graph.name}.onnx`;
      await writeFile(join(scratch, path), bytes);
      graphs[graph.name] = { file: path, ...graph.signature() };
      made.push({ path, bytes: bytes.byteLength, sha256: createHash("sha256").update(bytes).digest("hex") });
    }
    const named = await describeFiles(folder, model.files, options);
    const facts = { roots: { [ROOT]: relative(target, folder) }, files: [...made, ...named], graphs };
    const manifest = `${JSON.stringify({ format: "moevie-bundle/1", ...model.manifest, ...facts }, null, 1)}\n`;
    await writeFile(join(scratch, "manifest.json"), manifest);
    await publish(scratch, target, manifest);
    const sum = (files: readonly FileFacts[]): number => files.reduce((bytes, file) => bytes + file.bytes, 0);
    return { folder: target, bytesWritten: sum(made) + Buffer.byteLength(manifest), bytesNamed: sum(named) };
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}
