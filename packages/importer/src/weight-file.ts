// One safetensors file on disk as a source of weights for graphs. Reads its header, and of its tensors only what must be inlined.
import { closeSync, openSync, readSync } from "node:fs";
import { open } from "node:fs/promises";
import {
  parseSafetensorsHeader,
  SAFETENSORS_LENGTH_BYTES,
  safetensorsHeaderBytes,
  SafetensorsError,
  type StoredTensor,
} from "@moevie/tensor";
import type { WeightSource } from "./graph-builder.ts";

/** Weights of one file, and which of them have been asked for. */
export class WeightFile implements WeightSource {
  readonly file: string;
  readonly location: string;
  readonly #tensors: ReadonlyMap<string, StoredTensor>;
  readonly #asked = new Set<string>();

  constructor(file: string, location: string, tensors: ReadonlyMap<string, StoredTensor>) {
    this.file = file;
    this.location = location;
    this.#tensors = tensors;
  }

  /** Elements in all tensors. */
  get parameters(): number {
    let count = 0;
    for (const tensor of this.#tensors.values()) count += tensor.shape.reduce((product, size) => product * size, 1);
    return count;
  }

  /** The tensor `name`; throws SafetensorsError naming the file when there is none. */
  tensor(name: string): StoredTensor {
    const found = this.#tensors.get(name);
    if (found === undefined) throw new SafetensorsError(this.file, `tensor ${JSON.stringify(name)} is missing`);
    this.#asked.add(name);
    return found;
  }

  /** Throws SafetensorsError for a tensor nobody asked for: the model would be run without a part of it. */
  expectAllAsked(): void {
    for (const name of this.#tensors.keys()) {
      if (!this.#asked.has(name)) {
        throw new SafetensorsError(this.file, `tensor ${JSON.stringify(name)} is not one this architecture has`);
      }
    }
  }

  bytes(offset: number, length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    const handle = openSync(this.file, "r");
    try {
      const read = readSync(handle, bytes, 0, length, offset);
      if (read !== length) throw new SafetensorsError(this.file, `ends at byte ${offset + read}: it is truncated`);
    } finally {
      closeSync(handle);
    }
    return bytes;
  }

  /** The tensor `name`, which must have this shape. */
  expectShape(name: string, shape: readonly number[]): void {
    const found = this.tensor(name).shape;
    if (found.join() !== shape.join()) {
      throw new SafetensorsError(
        this.file,
        `tensor ${JSON.stringify(name)} has shape [${found.join(", ")}], expected [${shape.join(", ")}]`,
      );
    }
  }
}

/** Opens `file`, which graphs will call `location`. Throws SafetensorsError for a file that is missing or not well formed. */
export async function openWeightFile(file: string, location: string): Promise<WeightFile> {
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
    return new WeightFile(file, location, parseSafetensorsHeader(file, header, size));
  } finally {
    await handle.close();
  }
}
