// Turns the bytes of a stream into frames: gRPC message prefix, header, body. It never keeps more than one frame and never
// asks for a body buffer before the header has passed its bounds and its sizes agree with its length.
import { checkBodyBytes } from "./body.ts";
import { exchangeError } from "./exchange-error.ts";
import { HEADER_BYTES, decodeHeader } from "./frame.ts";
import type { FrameHeader } from "./frame.ts";

/** A gRPC message starts with one byte of flags and a big-endian u32 length. */
export const GRPC_PREFIX_BYTES = 5;
const HEAD_BYTES = GRPC_PREFIX_BYTES + HEADER_BYTES;

export interface FrameSink {
  /** A buffer of at least `header.bodyBytes`; may throw a MoevieError to refuse the frame and with it the stream. */
  allocate(header: FrameHeader): Uint8Array;
  /** A whole frame; `body` is the buffer from `allocate`, cut to the body's length. */
  frame(header: FrameHeader, body: Uint8Array): void;
}

export class FrameReader {
  readonly #sink: FrameSink;
  readonly #head = Buffer.alloc(HEAD_BYTES);
  #headFilled = 0;
  #header: FrameHeader | undefined;
  #body: Uint8Array = new Uint8Array(0);
  #bodyFilled = 0;

  constructor(sink: FrameSink) {
    this.#sink = sink;
  }

  /** Takes the next bytes, of any length. Throws a MoevieError on the first byte that cannot be part of a frame. */
  push(chunk: Uint8Array): void {
    let at = 0;
    while (at < chunk.length) {
      at = this.#header === undefined ? this.#takeHead(chunk, at) : this.#takeBody(this.#header, chunk, at);
    }
  }

  /** True between two frames: a stream that ends elsewhere was cut. */
  get idle(): boolean {
    return this.#header === undefined && this.#headFilled === 0;
  }

  #takeHead(chunk: Uint8Array, at: number): number {
    const end = Math.min(chunk.length, at + HEAD_BYTES - this.#headFilled);
    this.#head.set(chunk.subarray(at, end), this.#headFilled);
    this.#headFilled += end - at;
    if (this.#headFilled < HEAD_BYTES) return end;
    this.#headFilled = 0;
    if (this.#head[0] !== 0) throw exchangeError("INVALID_FIELD", "compressed exchange frames are not accepted");
    const header = decodeHeader(this.#head, GRPC_PREFIX_BYTES);
    if (this.#head.readUInt32BE(1) !== HEADER_BYTES + header.bodyBytes) {
      throw exchangeError("INVALID_FIELD", "exchange frame length differs from its message length");
    }
    checkBodyBytes(header);
    this.#body = this.#sink.allocate(header).subarray(0, header.bodyBytes);
    this.#bodyFilled = 0;
    if (header.bodyBytes === 0) this.#sink.frame(header, this.#body);
    else this.#header = header;
    return end;
  }

  #takeBody(header: FrameHeader, chunk: Uint8Array, at: number): number {
    const end = Math.min(chunk.length, at + header.bodyBytes - this.#bodyFilled);
    this.#body.set(at === 0 && end === chunk.length ? chunk : chunk.subarray(at, end), this.#bodyFilled);
    this.#bodyFilled += end - at;
    if (this.#bodyFilled === header.bodyBytes) {
      const body = this.#body;
      this.#header = undefined;
      this.#body = new Uint8Array(0);
      this.#sink.frame(header, body);
    }
    return end;
  }
}
