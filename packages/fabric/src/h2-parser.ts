// Turns received bytes into HTTP/2 frames. Payload of DATA frames goes where the stream wants it, straight from the socket when
// it is large; every other frame is small and collected. Nothing is allocated by a length before it is checked.
import type { ByteSink } from "./byte-socket.ts";
import { H2Error, H2Flag, H2Type, H2_HEADER_BYTES, PREFACE, readH2Header } from "./h2-frame.ts";
import type { H2Header } from "./h2-frame.ts";

/** What a frame other than DATA may weigh. */
const CONTROL_BYTES_MAX = 16_384;
const STAGING_BYTES = 16_384;
/** Less is cheaper read with what surrounds it. */
const DIRECT_BYTES_MIN = 8_192;

/** The peer broke the protocol: the connection ends with this code. */
export class H2Violation extends Error {
  readonly code: H2Error;

  constructor(code: H2Error, message: string) {
    super(message);
    this.code = code;
  }
}

/** Takes payload of a DATA frame. */
export interface PayloadSink {
  target(): Uint8Array;
  advance(bytes: number): void;
}

export interface H2Frames {
  /** A DATA frame begins; without a sink its payload is dropped. */
  dataStart(header: H2Header): PayloadSink | undefined;
  /** Its payload and padding are through. */
  dataEnd(header: H2Header): void;
  frame(header: H2Header, payload: Buffer): void;
  violation(violation: H2Violation): void;
}

interface Data {
  readonly header: H2Header;
  readonly sink: PayloadSink | undefined;
  payloadBytes: number;
  paddingBytes: number;
}

export class H2Parser implements ByteSink {
  readonly #frames: H2Frames;
  readonly #frameBytesMax: number;
  readonly #staging = Buffer.allocUnsafeSlow(STAGING_BYTES);
  readonly #headerBytes = Buffer.allocUnsafeSlow(H2_HEADER_BYTES);
  /** Being collected, until it is full; then `#then` takes it. */
  #wanted: Buffer;
  #filled = 0;
  #then: (bytes: Buffer) => void;
  #data: Data | undefined;
  #direct = false;
  #stopped = false;

  constructor(frames: H2Frames, options: { readonly preface: boolean; readonly frameBytesMax: number }) {
    this.#frames = frames;
    this.#frameBytesMax = options.frameBytesMax;
    this.#wanted = options.preface ? Buffer.alloc(PREFACE.length) : this.#headerBytes;
    this.#then = options.preface ? (bytes) => this.#preface(bytes) : this.#header;
  }

  target(): Uint8Array {
    const { sink, payloadBytes } = this.#data ?? { sink: undefined, payloadBytes: 0 };
    if (sink !== undefined && payloadBytes >= DIRECT_BYTES_MIN && !this.#stopped) {
      const target = sink.target();
      this.#direct = target.length >= DIRECT_BYTES_MIN;
      if (this.#direct) return target.length > payloadBytes ? target.subarray(0, payloadBytes) : target;
    }
    return this.#staging;
  }

  advance(bytes: number): void {
    if (!this.#direct) return this.push(this.#staging.subarray(0, bytes));
    this.#direct = false;
    const data = this.#data;
    if (data === undefined || this.#stopped) return;
    data.payloadBytes -= bytes;
    this.#guard(() => {
      data.sink?.advance(bytes);
      if (data.payloadBytes === 0) this.#endPayload(data);
    });
  }

  push(chunk: Uint8Array): void {
    this.#guard(() => {
      for (let at = 0; at < chunk.length && !this.#stopped;) {
        at += this.#data === undefined ? this.#collect(chunk, at) : this.#payload(this.#data, chunk, at);
      }
    });
  }

  /** Whatever still comes is dropped. */
  stop(): void {
    this.#stopped = true;
  }

  #guard(work: () => void): void {
    try {
      work();
    } catch (thrown) {
      this.#stopped = true;
      if (!(thrown instanceof H2Violation)) throw thrown;
      this.#frames.violation(thrown);
    }
  }

  #collect(chunk: Uint8Array, at: number): number {
    const bytes = Math.min(chunk.length - at, this.#wanted.length - this.#filled);
    this.#wanted.set(chunk.subarray(at, at + bytes), this.#filled);
    this.#filled += bytes;
    if (this.#filled === this.#wanted.length) this.#then(this.#wanted);
    return bytes;
  }

  #want(bytes: Buffer, then: (bytes: Buffer) => void): void {
    this.#wanted = bytes;
    this.#filled = 0;
    this.#then = then;
  }

  #wantHeader(): void {
    this.#data = undefined;
    this.#want(this.#headerBytes, this.#header);
  }

  #preface(bytes: Buffer): void {
    if (!bytes.equals(PREFACE)) throw new H2Violation(H2Error.protocol, "not an HTTP/2 client");
    this.#wantHeader();
  }

  readonly #header = (bytes: Buffer): void => {
    const header = readH2Header(bytes);
    const bytesMax = header.type === H2Type.data ? this.#frameBytesMax : CONTROL_BYTES_MAX;
    if (header.length > bytesMax)
      throw new H2Violation(H2Error.frameSize, `a frame of ${header.length} bytes, at most ${bytesMax}`);
    if (header.type !== H2Type.data) {
      const take = (payload: Buffer): void => {
        this.#wantHeader();
        this.#frames.frame(header, payload);
      };
      if (header.length === 0) take(Buffer.alloc(0));
      else this.#want(Buffer.allocUnsafe(header.length), take);
    } else if ((header.flags & H2Flag.padded) === 0) this.#startData(header, header.length, 0);
    else if (header.length === 0) throw new H2Violation(H2Error.frameSize, "a padded frame without padding length");
    else
      this.#want(Buffer.alloc(1), ([padding]) => {
        const payloadBytes = header.length - 1 - (padding as number);
        if (payloadBytes < 0) throw new H2Violation(H2Error.protocol, "more padding than frame");
        this.#startData(header, payloadBytes, padding as number);
      });
  };

  #startData(header: H2Header, payloadBytes: number, paddingBytes: number): void {
    const data = { header, sink: this.#frames.dataStart(header), payloadBytes, paddingBytes };
    this.#data = data;
    if (payloadBytes === 0) this.#endPayload(data);
  }

  /** Payload first, then padding. Returns how much of the chunk was taken. */
  #payload(data: Data, chunk: Uint8Array, at: number): number {
    if (data.payloadBytes === 0) {
      const bytes = Math.min(chunk.length - at, data.paddingBytes);
      data.paddingBytes -= bytes;
      if (data.paddingBytes === 0) this.#endFrame(data);
      return bytes;
    }
    let bytes = Math.min(chunk.length - at, data.payloadBytes);
    if (data.sink !== undefined) {
      const target = data.sink.target();
      bytes = Math.min(bytes, target.length);
      target.set(at === 0 && bytes === chunk.length ? chunk : chunk.subarray(at, at + bytes));
      data.sink.advance(bytes);
    }
    data.payloadBytes -= bytes;
    if (data.payloadBytes === 0) this.#endPayload(data);
    return bytes;
  }

  #endPayload(data: Data): void {
    if (data.paddingBytes === 0) this.#endFrame(data);
  }

  #endFrame({ header }: Data): void {
    this.#wantHeader();
    this.#frames.dataEnd(header);
  }
}

/** A control frame of exactly this payload. */
export function expectLength(payload: Buffer, bytes: number): void {
  if (payload.length !== bytes)
    throw new H2Violation(H2Error.frameSize, `a frame of ${payload.length} bytes instead of ${bytes}`);
}

const CONNECTION_FRAMES: ReadonlySet<number> = new Set([H2Type.settings, H2Type.ping, H2Type.goAway]);

/** What speaks of the connection must not come on a stream. */
export function expectStreamZero({ type, stream }: H2Header): void {
  if (stream !== 0 && CONNECTION_FRAMES.has(type))
    throw new H2Violation(H2Error.protocol, `a frame of the connection on stream ${stream}`);
}
