// The shard's end of a segment: the part of it that a request names, within bounds whatever the router says.
import { exchangeError } from "./exchange-error.ts";
import { SEGMENT_ROWS_AT, joinSegment } from "./segment-file.ts";
import type { JoinedSegment } from "./segment-file.ts";

/** Elements of every type lie at multiples of their size. */
const ALIGNED = 8;

export class ServerSegment {
  readonly #joined: JoinedSegment;

  private constructor(joined: JoinedSegment) {
    this.#joined = joined;
  }

  /** Opens what a router offers. Throws when it cannot be had. */
  static async join(folder: string, offer: Buffer): Promise<ServerSegment> {
    return new ServerSegment(await joinSegment(folder, offer));
  }

  /** The router's proof: what shows it that this is the same memory. */
  get proof(): Buffer {
    return this.#joined.proof;
  }

  get buffer(): ArrayBuffer {
    return this.#joined.memory.buffer;
  }

  /** Throws INVALID_FIELD unless `bytes` bytes from `at` on lie where rows may be. */
  check(at: number, bytes: number): void {
    if (at >= SEGMENT_ROWS_AT && at % ALIGNED === 0 && at + bytes <= this.#joined.bytes) return;
    const allowed = `from ${SEGMENT_ROWS_AT} to ${this.#joined.bytes}, in steps of ${ALIGNED}`;
    throw exchangeError(
      "INVALID_FIELD",
      `exchange rows of ${bytes} bytes at ${at} of the segment; allowed: ${allowed}`,
    );
  }

  /** No call reads or writes here any more. */
  close(): void {
    this.#joined.memory.retire();
  }
}
