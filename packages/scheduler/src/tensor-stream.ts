// Tensors in streams of gRPC messages: a head, then the bytes in chunks. Only f32 travels here, little-endian.
import { MoevieError, limit, type TensorHead } from "@moevie/contracts";

/** The head of an f32 tensor. */
export function f32Head(shape: readonly number[]): TensorHead {
  return { elementType: "ELEMENT_TYPE_F32", shape: [...shape] };
}

/** The values' own bytes: every platform the runtime supports is little-endian. */
export function bytesOf(values: Float32Array): Buffer {
  return Buffer.from(values.buffer, values.byteOffset, values.byteLength);
}

/** A head, then `bytes` in order, at most tensorChunkBytesMax a message. */
export async function* headAndChunks<H>(head: H, bytes: Buffer): AsyncGenerator<{ head: H } | { chunk: Buffer }> {
  yield { head };
  for (const chunk of chunksOf(bytes)) yield { chunk };
}

/** `bytes` in order, at most tensorChunkBytesMax each. */
export function* chunksOf(bytes: Buffer): Generator<Buffer> {
  const chunkBytes = limit("tensorChunkBytesMax");
  for (let start = 0; start < bytes.length; start += chunkBytes) yield bytes.subarray(start, start + chunkBytes);
}

/** Gathers the chunks of one f32 tensor. */
export class TensorReader {
  readonly #shape: readonly number[];
  readonly #values: Float32Array;
  readonly #bytes: Buffer;
  #filled = 0;
  #headSeen = false;

  constructor(shape: readonly number[]) {
    this.#shape = shape;
    this.#values = new Float32Array(shape.reduce((product, size) => product * size, 1));
    this.#bytes = bytesOf(this.#values);
  }

  /** Throws INTERNAL for another type or shape. */
  head(head: TensorHead | null | undefined): void {
    this.#headSeen = true;
    if (head?.elementType === "ELEMENT_TYPE_F32" && String(head.shape) === String(this.#shape)) return;
    throw unexpected(
      `${head?.elementType ?? "no type"} [${String(head?.shape ?? [])}], expected f32 [${String(this.#shape)}]`,
    );
  }

  /** Throws INTERNAL for bytes before the head or beyond the tensor. */
  chunk(chunk: Buffer): void {
    if (!this.#headSeen) throw unexpected("a chunk before the head");
    if (this.#filled + chunk.length > this.#bytes.length) throw unexpected("more bytes than the tensor has");
    this.#filled += chunk.copy(this.#bytes, this.#filled);
  }

  /** Whether every byte is in. */
  get whole(): boolean {
    return this.#headSeen && this.#filled === this.#bytes.length;
  }

  /** The tensor. Throws PEER_UNAVAILABLE when the stream ended before it was whole. */
  end(): Float32Array {
    if (this.#filled === this.#bytes.length) return this.#values;
    throw new MoevieError("PEER_UNAVAILABLE", "A service ended its answer early.", {
      detail: `${this.#filled} of ${this.#bytes.length} bytes`,
    });
  }
}

function unexpected(detail: string): MoevieError {
  return new MoevieError("INTERNAL", "A service gave an answer of the wrong form.", { detail });
}
