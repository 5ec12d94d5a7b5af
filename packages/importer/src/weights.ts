// Safetensors files on disk as a source of weights for graphs: one file, or the several of an index. Reads their headers, and of
// their tensors only what must be inlined. What is missing, left over or of another shape is told all at once, by name.
import { closeSync, openSync, readSync } from "node:fs";
import { open } from "node:fs/promises";
import {
  parseSafetensorsHeader,
  SAFETENSORS_LENGTH_BYTES,
  safetensorsHeaderBytes,
  SafetensorsError,
} from "@moevie/tensor";
import type { PlacedTensor, WeightSource } from "./graph-builder.ts";

/** So many names of one kind are told; of more, their number. */
const NAMES_TOLD_MAX = 12;

/** A file and what graphs call it. */
export type WeightFile = { readonly file: string; readonly location: string };

function quoted(names: Iterable<string>): string[] {
  return Array.from(names, (name) => JSON.stringify(name));
}

function listed(names: readonly string[]): string {
  const told = names.slice(0, NAMES_TOLD_MAX).join(", ");
  return names.length > NAMES_TOLD_MAX ? `${told} and ${names.length - NAMES_TOLD_MAX} more` : told;
}

/** Tensors by name, and which of them a graph has asked for. */
export class Weights implements WeightSource {
  /** What errors blame: the file, or the folder of several. */
  readonly name: string;
  /** By location. */
  readonly #files: ReadonlyMap<string, string>;
  readonly #tensors: ReadonlyMap<string, PlacedTensor>;
  readonly #asked = new Set<string>();
  readonly #missing = new Set<string>();
  readonly #misshapen = new Map<string, string>();

  constructor(name: string, files: readonly WeightFile[], tensors: ReadonlyMap<string, PlacedTensor>) {
    this.name = name;
    this.#files = new Map(files.map(({ file, location }) => [location, file]));
    this.#tensors = tensors;
  }

  /** The files, as graphs name them. */
  get locations(): readonly string[] {
    return [...this.#files.keys()];
  }

  /** Elements in all tensors. */
  get parameters(): number {
    let count = 0;
    for (const tensor of this.#tensors.values()) count += tensor.shape.reduce((product, size) => product * size, 1);
    return count;
  }

  has(name: string): boolean {
    return this.#tensors.has(name);
  }

  /** The tensor `name`. For one that is missing something takes its place until `settle` tells of it. */
  tensor(name: string): PlacedTensor {
    const found = this.#tensors.get(name);
    if (found !== undefined) {
      this.#asked.add(name);
      return found;
    }
    this.#missing.add(name);
    return { name, dtype: "f32", shape: [1], offset: 0, length: 0, location: "" };
  }

  /** Asks for `name`, which must have this shape. */
  expectShape(name: string, shape: readonly number[]): void {
    const found = this.tensor(name);
    if (!this.#missing.has(name) && found.shape.join() !== shape.join())
      this.#misshapen.set(name, `${JSON.stringify(name)} [${found.shape.join(", ")}], expected [${shape.join(", ")}]`);
  }

  /**
   * To be called when every graph is built. Throws SafetensorsError that names tensors missing, of another shape, and those nobody asked
   * for: the model would be run without a part of it.
   */
  settle(): void {
    const extra = [...this.#tensors.keys()].filter((name) => !this.#asked.has(name));
    const faults: string[] = [];
    if (this.#missing.size > 0) faults.push(`missing: ${listed(quoted(this.#missing))}`);
    if (this.#misshapen.size > 0) faults.push(`of another shape: ${listed([...this.#misshapen.values()])}`);
    if (extra.length > 0) faults.push(`not of this architecture: ${listed(quoted(extra))}`);
    if (faults.length > 0) throw new SafetensorsError(this.name, `tensors ${faults.join("; ")}`);
  }

  /** Of a tensor of these files, or of a slice of one. */
  bytes({ location, offset, length }: PlacedTensor): Uint8Array {
    const bytes = new Uint8Array(length);
    const file = this.#files.get(location);
    // What stands for a missing tensor.
    if (file === undefined) return bytes;
    const handle = openSync(file, "r");
    try {
      const read = readSync(handle, bytes, 0, length, offset);
      if (read !== length) throw new SafetensorsError(file, `ends at byte ${offset + read}: it is truncated`);
    } finally {
      closeSync(handle);
    }
    return bytes;
  }
}

async function readTensors({ file, location }: WeightFile): Promise<PlacedTensor[]> {
  const handle = await open(file).catch((cause: unknown) => {
    throw new SafetensorsError(file, `cannot be opened (${(cause as NodeJS.ErrnoException).code ?? String(cause)})`);
  });
  try {
    const { size } = await handle.stat();
    const start = new Uint8Array(SAFETENSORS_LENGTH_BYTES);
    const { bytesRead } = await handle.read(start, 0, start.length, 0);
    const header = new Uint8Array(safetensorsHeaderBytes(file, start.subarray(0, bytesRead), size));
    const body = await handle.read(header, 0, header.length, SAFETENSORS_LENGTH_BYTES);
    if (body.bytesRead !== header.length) throw new SafetensorsError(file, "ends inside its header: it is truncated");
    return Array.from(parseSafetensorsHeader(file, header, size).values(), (tensor) => ({ ...tensor, location }));
  } finally {
    await handle.close();
  }
}

/**
 * Opens `files` as one set of weights called `name`. With `places`, the file each tensor must be in. Throws SafetensorsError for a
 * file that is missing or not well formed, and for a tensor that is in two files or not where `places` says.
 */
export async function openWeights(
  name: string,
  files: readonly WeightFile[],
  places?: ReadonlyMap<string, string>,
): Promise<Weights> {
  const tensors = new Map<string, PlacedTensor>();
  for (const file of files) {
    for (const tensor of await readTensors(file)) {
      const other = tensors.get(tensor.name);
      const shown = `tensor ${JSON.stringify(tensor.name)}`;
      if (other !== undefined) throw new SafetensorsError(file.file, `${shown} is also in ${other.location}`);
      const place = places?.get(tensor.name);
      if (places !== undefined && place !== file.location)
        throw new SafetensorsError(file.file, `${shown} is not listed as one of this file's in the index`);
      tensors.set(tensor.name, tensor);
    }
  }
  for (const [tensor, location] of places ?? [])
    if (!tensors.has(tensor))
      throw new SafetensorsError(name, `tensor ${JSON.stringify(tensor)} is not in ${location}`);
  return new Weights(name, files, tensors);
}

/** Opens one file, which graphs will call `location`. */
export function openWeightFile(file: string, location: string): Promise<Weights> {
  return openWeights(file, [{ file, location }]);
}
