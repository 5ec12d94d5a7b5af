// Headers of the safetensors files of a bundle, read once each. Reads headers only, never tensor data.
import { open } from "node:fs/promises";
import {
  parseSafetensorsHeader,
  SAFETENSORS_LENGTH_BYTES,
  safetensorsHeaderBytes,
  type StoredTensor,
} from "@moevie/tensor";
import { BundleError, unreadable } from "./bundle-error.ts";

export type WeightHeader = {
  readonly bytes: Uint8Array;
  readonly fileBytes: number;
  readonly tensors: ReadonlyMap<string, StoredTensor>;
};

/** The header of the file at `absolute`, which the bundle calls `path`. Throws BundleError. */
export async function readWeightHeader(path: string, absolute: string): Promise<WeightHeader> {
  const handle = await open(absolute).catch(unreadable(path));
  try {
    const { size } = await handle.stat();
    const start = new Uint8Array(SAFETENSORS_LENGTH_BYTES);
    const { bytesRead } = await handle.read(start, 0, start.length, 0);
    const header = new Uint8Array(safetensorsHeaderBytes(path, start.subarray(0, bytesRead), size));
    const body = await handle.read(header, 0, header.length, SAFETENSORS_LENGTH_BYTES);
    if (body.bytesRead !== header.length) throw new BundleError(path, "ends inside its header: it is truncated");
    return { bytes: header, fileBytes: size, tensors: parseSafetensorsHeader(path, header, size) };
  } catch (cause) {
    if (cause instanceof BundleError) throw cause;
    throw new BundleError(path, (cause as Error).message.replace(`${path}: `, ""), { cause });
  } finally {
    await handle.close();
  }
}
