// Puts the header blocks of one direction of an HTTP/2 connection together: a block may come in several frames, with nothing
// between them, and every block must be decoded, since the decoder's table goes on from one to the next.
import { H2Error, H2Flag, H2Type } from "./h2-frame.ts";
import type { H2Header } from "./h2-frame.ts";
import { H2Violation } from "./h2-parser.ts";
import { HpackDecoder } from "./hpack.ts";
import type { Headers } from "./hpack.ts";

const BLOCK_BYTES_MAX = 16_384;

export interface HeaderBlock {
  readonly stream: number;
  readonly endStream: boolean;
  readonly headers: Headers;
}

interface OpenBlock {
  readonly stream: number;
  readonly flags: number;
  readonly parts: Buffer[];
  bytes: number;
}

export class HeaderBlocks {
  readonly #decoder = new HpackDecoder();
  #open: OpenBlock | undefined;

  /** Throws when a frame of `type` comes between the parts of a block. */
  expect(type: number): void {
    if (this.#open !== undefined && type !== H2Type.continuation)
      throw new H2Violation(H2Error.protocol, "another frame between the parts of a header block");
  }

  /** A HEADERS frame; answers the block when it is whole. */
  begin({ flags, stream }: H2Header, payload: Buffer): HeaderBlock | undefined {
    if (stream === 0) throw new H2Violation(H2Error.protocol, "headers on stream 0");
    const padded = (flags & H2Flag.padded) !== 0;
    const start = (padded ? 1 : 0) + ((flags & H2Flag.priority) === 0 ? 0 : 5);
    const end = payload.length - (padded ? (payload[0] ?? 0) : 0);
    if (start > end) throw new H2Violation(H2Error.protocol, "more padding than frame");
    const open = { stream, flags, parts: [payload.subarray(start, end)], bytes: end - start };
    return this.#done(open, flags);
  }

  /** A CONTINUATION frame; answers the block when it is whole. */
  goOn({ flags, stream }: H2Header, payload: Buffer): HeaderBlock | undefined {
    const open = this.#open;
    if (open === undefined || open.stream !== stream)
      throw new H2Violation(H2Error.protocol, "a continuation of nothing");
    open.parts.push(payload);
    open.bytes += payload.length;
    if (open.bytes > BLOCK_BYTES_MAX)
      throw new H2Violation(H2Error.enhanceYourCalm, `a header block above ${BLOCK_BYTES_MAX} bytes`);
    return this.#done(open, flags);
  }

  #done(open: OpenBlock, flags: number): HeaderBlock | undefined {
    this.#open = (flags & H2Flag.endHeaders) === 0 ? open : undefined;
    if (this.#open !== undefined) return undefined;
    try {
      const headers = this.#decoder.decode(Buffer.concat(open.parts));
      return { stream: open.stream, endStream: (open.flags & H2Flag.endStream) !== 0, headers };
    } catch (thrown) {
      throw new H2Violation(H2Error.compression, thrown instanceof Error ? thrown.message : "broken headers");
    }
  }
}
