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

  /** Where the next bytes belong: the rest of a head or of a body. */
  target(): Uint8Array {
    if (this.#header === undefined) return this.#head.subarray(this.#headFilled);
    return this.#body.subarray(this.#bodyFilled);
  }

  /** `bytes` bytes were put at the start of `target`. Throws a MoevieError when they cannot be part of a frame. */
  advance(bytes: number): void {
    if (this.#header === undefined) {
      this.#headFilled += bytes;
      if (this.#headFilled === HEAD_BYTES) this.#headDone();
    } else {
      this.#bodyFilled += bytes;
      if (this.#bodyFilled === this.#header.bodyBytes) this.#bodyDone(this.#header);
    }
  }

  /** True between two frames: a stream that ends elsewhere was cut. */
  get idle(): boolean {
    return this.#header === undefined && this.#headFilled === 0;
  }

  #headDone(): void {
    this.#headFilled = 0;
    if (this.#head[0] !== 0) throw exchangeError("INVALID_FIELD", "compressed exchange frames are not accepted");
    const header = decodeHeader(this.#head, GRPC_PREFIX_BYTES);
    if (this.#head.readUInt32BE(1) !== HEADER_BYTES + header.bodyBytes) {
      throw exchangeError("INVALID_FIELD", "exchange frame length differs from its message length");
    }
    checkBodyBytes(header);
    const body = this.#sink.allocate(header).subarray(0, header.bodyBytes);
    if (header.bodyBytes === 0) {
      this.#sink.frame(header, body);
      return;
    }
    this.#header = header;
    this.#body = body;
    this.#bodyFilled = 0;
  }

  #bodyDone(header: FrameHeader): void {
    const body = this.#body;
    this.#header = undefined;
    this.#body = new Uint8Array(0);
    this.#sink.frame(header, body);
  }
}
