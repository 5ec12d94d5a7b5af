// Tensors as a head and chunks: what Denoise and PutContext receive and send. Checks sizes before it allocates.
import { MoevieError, limit } from "@moevie/contracts";
import type { TensorHead } from "@moevie/contracts";

/** Checks a tensor's head: f32, `rank` whole sizes, at most `bytesMax`. Throws INVALID_FIELD naming `field`. */
export function tensorBytes(
  head: TensorHead | null,
  field: string,
  rank: number,
  bytesMax: number,
): { shape: number[]; bytes: number } {
  const shape = head?.shape ?? [];
  if (head?.elementType !== "ELEMENT_TYPE_F32") throw invalidTensor(field, "element type must be ELEMENT_TYPE_F32");
  if (shape.length !== rank || shape.some((size) => size < 1))
    throw invalidTensor(field, `shape must have ${rank} sizes of 1 or more`);
  const bytes = shape.reduce((product, size) => product * size, 4);
  if (bytes > bytesMax) throw invalidTensor(field, `${bytes} bytes are above ${bytesMax}`);
  return { shape, bytes };
}

/**
 * Collects the chunks behind a head and leaves what follows unread. Throws INVALID_FIELD when they are not exactly `bytes`
 * long.
 */
export async function collectTensor(
  parts: AsyncIterator<{ chunk?: Uint8Array; head?: unknown }>,
  bytes: number,
  field: string,
): Promise<Float32Array> {
  const tensor = new Uint8Array(bytes);
  for (let filled = 0; filled < bytes;) {
    const next = await parts.next();
    if (next.done === true) throw invalidTensor(field, `chunks must be ${bytes} bytes in all, ${filled} came`);
    const { chunk } = next.value;
    if (chunk === undefined || filled + chunk.length > bytes)
      throw invalidTensor(field, `chunks must be ${bytes} bytes in all`);
    tensor.set(chunk, filled);
    filled += chunk.length;
  }
  return new Float32Array(tensor.buffer);
}

/** The chunks of a tensor, in order. */
export function* chunksOf(tensor: Float32Array): Iterable<{ chunk: Buffer }> {
  const bytes = Buffer.from(tensor.buffer, tensor.byteOffset, tensor.byteLength);
  const step = limit("tensorChunkBytesMax");
  for (let at = 0; at < bytes.length; at += step) yield { chunk: bytes.subarray(at, at + step) };
}

export function invalidTensor(field: string, description: string): MoevieError {
  return new MoevieError("INVALID_FIELD", `${field}: ${description}.`, { violations: [{ field, description }] });
}
