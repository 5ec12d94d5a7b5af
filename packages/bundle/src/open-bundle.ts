// Opens a bundle: checks what it claims, hands out graphs that are ready to load and says where tensors lie. Read only.
// A graph's weights are named relative to "/": the process that makes sessions of them runs there (see docs/decisions).
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { readFile, realpath, stat } from "node:fs/promises";
import { join, sep } from "node:path";
import type { StoredTensor } from "@moevie/tensor";
import { BundleError, unreadable } from "./bundle-error.ts";
import {
  MANIFEST_BYTES_MAX,
  MANIFEST_FILE,
  isNoiseDenoiser,
  parseManifest,
  type FileEntry,
  type Manifest,
} from "./manifest.ts";
import { hiddenPartOf, operatorsOf, placeReferences, referencesOf, type ReferencedTensor } from "./onnx-references.ts";
import { KNOWN_OPERATORS } from "./operators.ts";
import { Roots } from "./roots.ts";
import { readWeightHeader, type WeightHeader } from "./weight-index.ts";

/** Where a tensor lies: `length` bytes at `offset` of the absolute path `file`. */
export type TensorPlace = StoredTensor & { readonly file: string };
type OpenFile = { readonly entry: FileEntry; readonly file: string; readonly header: WeightHeader | undefined };

const SLOT = /^slot\/(\d+)\/(\w+)$/;

async function fileSha256(file: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(file, { highWaterMark: 1 << 20 })) hash.update(chunk as Buffer);
  return hash.digest("hex");
}

async function openFile(roots: Roots, entry: FileEntry, verify: boolean): Promise<OpenFile> {
  const { file, bytes } = await roots.resolve(entry.path);
  if (bytes !== entry.bytes) {
    throw new BundleError(
      entry.path,
      `is ${bytes} bytes long, expected ${entry.bytes}${bytes < entry.bytes ? ": it is truncated" : ""}`,
    );
  }
  if (verify && entry.sha256 !== undefined) {
    const sha256 = await fileSha256(file).catch(unreadable(entry.path));
    if (sha256 !== entry.sha256) throw new BundleError(entry.path, `has sha256 ${sha256}, expected ${entry.sha256}`);
  }
  return {
    entry,
    file,
    header: entry.path.endsWith(".safetensors") ? await readWeightHeader(entry.path, file) : undefined,
  };
}

/** sha256 over the manifest but for where its roots lie, and the header and size of every weight file. Graphs are in by their hash. */
function digestOf(manifest: Manifest, files: Iterable<OpenFile>): string {
  const hash = createHash("sha256");
  hash.update(JSON.stringify({ ...manifest, roots: Object.keys(manifest.roots) }));
  for (const { entry, header } of files) {
    if (header !== undefined) hash.update(`\n${entry.path} ${header.fileBytes}\n`).update(header.bytes);
  }
  return hash.digest("hex");
}

/** Operators all known, weights all in sight, and bytes that are a model at all. Throws BundleError. */
function checkContent(path: string, bytes: Uint8Array): void {
  try {
    for (const operator of operatorsOf(bytes)) {
      if (!KNOWN_OPERATORS.has(operator))
        throw new BundleError(path, `operator ${operator} is not one this version runs`);
    }
    const hidden = hiddenPartOf(bytes);
    if (hidden !== undefined) throw new BundleError(path, `has ${hidden}, which this version does not run`);
    referencesOf(bytes);
  } catch (cause) {
    if (cause instanceof BundleError) throw cause;
    throw new BundleError(path, "is not an ONNX model", { cause });
  }
}

export class Bundle {
  readonly manifest: Manifest;
  /** Names the model exactly, wherever its files lie. Hex sha256. */
  readonly digest: string;
  readonly #files: ReadonlyMap<string, OpenFile>;

  constructor(manifest: Manifest, files: ReadonlyMap<string, OpenFile>) {
    this.manifest = manifest;
    this.#files = files;
    this.digest = digestOf(manifest, files.values());
  }

  #file(path: string): OpenFile {
    const found = this.#files.get(path);
    if (found === undefined) throw new BundleError(path, `is not among the files of ${MANIFEST_FILE}`);
    return found;
  }

  /** Absolute path of the file the bundle calls `path`. */
  path(path: string): string {
    return this.#file(path).file;
  }

  /** Where tensor `name` of the file `path` lies. */
  tensor(name: string, path: string): TensorPlace {
    const { file, header } = this.#file(path);
    const tensor = header?.tensors.get(name);
    if (tensor === undefined) throw new BundleError(path, `tensor ${JSON.stringify(name)} is missing`);
    return { ...tensor, file };
  }

  async #model(name: string): Promise<{ path: string; bytes: Uint8Array }> {
    const graph = this.manifest.graphs[name];
    if (graph === undefined) {
      throw new BundleError(
        MANIFEST_FILE,
        `graph ${JSON.stringify(name)} is missing, there are ${Object.keys(this.manifest.graphs).join(", ")}`,
      );
    }
    const { file, entry } = this.#file(graph.file);
    const bytes = await readFile(file).catch(unreadable(graph.file));
    const sha256 = createHash("sha256").update(bytes).digest("hex");
    if (sha256 !== entry.sha256) throw new BundleError(graph.file, `has sha256 ${sha256}, expected ${entry.sha256}`);
    checkContent(graph.file, bytes);
    return { path: graph.file, bytes };
  }

  /** `location` as the runtime must be told it, checked to hold `reference`. */
  #place(
    graph: string,
    { name, location, offset, length }: Omit<ReferencedTensor, "elements">,
  ): { location: string; offset: number; length: number } {
    const { file, entry } = this.#file(location);
    if (!(offset >= 0 && length >= 0 && offset + length <= entry.bytes)) {
      throw new BundleError(
        graph,
        `weight ${name} is bytes ${offset} to ${offset + length} of ${location}, which has ${entry.bytes}`,
      );
    }
    return { location: file.split(sep).join("/").replace(/^\//, ""), offset, length };
  }

  /** ModelProto bytes of the graph `name`, its weights named relative to "/". Throws BundleError. */
  async graph(name: string): Promise<Uint8Array> {
    const { path, bytes } = await this.#model(name);
    return placeReferences(bytes, (tensor) => this.#place(path, tensor));
  }

  /**
   * ModelProto bytes for these experts of one layer, side by side: rows [n, hidden], first all of experts[0], then experts[1], …;
   * counts i64 [experts.length], zeros allowed -> y [n, hidden]. Weights are named relative to "/". Throws BundleError.
   */
  async expertGraph(layer: number, experts: readonly number[]): Promise<Uint8Array> {
    const { denoiser } = this.manifest;
    if (isNoiseDenoiser(denoiser)) throw new BundleError(MANIFEST_FILE, "has no experts for tokens");
    const { path, bytes } = await this.#model(`experts.${experts.length}`);
    return placeReferences(bytes, (tensor) => {
      const [, slot, name] = SLOT.exec(tensor.location) ?? [];
      const expert = experts[Number(slot)];
      if (name === undefined || expert === undefined)
        throw new BundleError(path, `weight location ${tensor.location}, expected slot/<slot>/<name>`);
      const stacked = this.tensor(
        denoiser.expertWeights.replace("{layer}", String(layer)).replace("{name}", name),
        denoiser.file,
      );
      const length = stacked.length / denoiser.experts;
      if (stacked.shape[0] !== denoiser.experts || expert < 0 || expert >= denoiser.experts || length !== tensor.length)
        throw new BundleError(path, `no expert ${expert} of layer ${layer}`);
      return this.#place(path, {
        name: tensor.name,
        location: denoiser.file,
        offset: stacked.offset + expert * length,
        length,
      });
    });
  }

  /** Reads every graph: its hash, its operators, the weights it names. Throws BundleError for the first that is wrong. */
  async checkGraphs(): Promise<void> {
    for (const name of Object.keys(this.manifest.graphs)) {
      const slots = Number(/^experts\.(\d+)$/.exec(name)?.[1] ?? 0);
      if (slots === 0) await this.graph(name);
      else
        await this.expertGraph(
          0,
          Array.from({ length: slots }, (_, expert) => expert),
        );
    }
  }

  /** Weights the graph `name` refers to, in elements; a session holds each as f32. */
  async weightElements(name: string): Promise<number> {
    const { bytes } = await this.#model(name);
    return referencesOf(bytes).reduce((sum, tensor) => sum + tensor.elements, 0);
  }

  /** Paths of files that were never read in full: nothing is known to compare them with. */
  get unread(): readonly string[] {
    return this.manifest.files.filter(({ sha256 }) => sha256 === undefined).map(({ path }) => path);
  }

  /** Reads every file whose hash is known in full and compares it. Throws BundleError for the first that differs. */
  async verify(signal?: AbortSignal): Promise<void> {
    for (const { entry, file } of this.#files.values()) {
      signal?.throwIfAborted();
      if (entry.sha256 === undefined) continue;
      const sha256 = await fileSha256(file).catch(unreadable(entry.path));
      if (sha256 !== entry.sha256) throw new BundleError(entry.path, `has sha256 ${sha256}, expected ${entry.sha256}`);
    }
  }
}

async function readManifest(file: string): Promise<string> {
  const { size } = await stat(file);
  if (size > MANIFEST_BYTES_MAX)
    throw new BundleError(MANIFEST_FILE, `is ${size} bytes long, expected at most ${MANIFEST_BYTES_MAX}`);
  return readFile(file, "utf8");
}

/**
 * Opens the bundle in `folder`: every file is there, has its size and stays inside its root; every weight file's header is sound.
 * With `verify` every file is read in full and hashed too. Throws BundleError.
 */
export async function openBundle(folder: string, options: { verify?: boolean } = {}): Promise<Bundle> {
  const real = await realpath(folder).catch((cause: unknown) => {
    throw new BundleError(folder, "is missing", { cause });
  });
  const text = await readManifest(join(real, MANIFEST_FILE)).catch((cause: unknown) => {
    if (cause instanceof BundleError) throw cause;
    if ((cause as NodeJS.ErrnoException).code !== "ENOENT") unreadable(MANIFEST_FILE)(cause);
    throw new BundleError(MANIFEST_FILE, `is missing from ${folder}`, { cause });
  });
  const manifest = parseManifest(text);
  const roots = await Roots.open(real, manifest.roots);
  const files = new Map<string, OpenFile>();
  // One after the other: a manifest may list more files than a process may have open.
  for (const entry of manifest.files) {
    if (files.has(entry.path)) throw new BundleError(MANIFEST_FILE, `files has ${entry.path} twice`);
    files.set(entry.path, await openFile(roots, entry, options.verify ?? false));
  }
  return new Bundle(manifest, files);
}
