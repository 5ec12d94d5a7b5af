// The router's end of a segment: who gets which part of it, which parts an answer may still be written to, and memory that is there before
// it is used. One a connection.
import { closeSync, writeSync } from "node:fs";
import { SEGMENT_ROWS_AT, offerSegment, removeStaleSegments } from "./segment-file.ts";
import type { OfferedSegment } from "./segment-file.ts";
import { SegmentSpace } from "./segment-space.ts";
import type { SegmentPart } from "./segment-space.ts";

/** Memory is claimed from the system in pieces of this size: a multiple of any page. */
const CLAIM_BYTES = 262_144;

const cleaned = new Map<string, Promise<number>>();

/** Clears `folder` of what dead routers left, once a process, or again after it could not. */
function clean(folder: string): Promise<number> {
  const running = cleaned.get(folder) ?? removeStaleSegments(folder);
  cleaned.set(folder, running);
  running.catch(() => cleaned.delete(folder));
  return running;
}

export class ClientSegment {
  readonly #made: OfferedSegment;
  readonly #space: SegmentSpace;
  /** Parts of calls that nobody waits for any more, by call: their answers may still be written there. */
  readonly #late = new Map<number, SegmentPart>();
  #claimed = SEGMENT_ROWS_AT;
  #isProven = false;
  #closed = false;

  private constructor(made: OfferedSegment) {
    this.#made = made;
    this.#space = new SegmentSpace(SEGMENT_ROWS_AT, made.bytes);
  }

  /** Makes one in `folder`. Throws what the system says: where files cannot be mapped, and where there is no memory for any row. */
  static async offer(folder: string): Promise<ClientSegment> {
    await clean(folder);
    const segment = new ClientSegment(await offerSegment(folder));
    if (segment.#claim(SEGMENT_ROWS_AT + CLAIM_BYTES)) return segment;
    segment.close();
    throw new Error(`${folder} has no room for ${CLAIM_BYTES} bytes`);
  }

  /** What the shard is told. */
  get offer(): Buffer {
    return this.#made.offer;
  }

  /** The shard has it too. */
  get isProven(): boolean {
    return this.#isProven;
  }

  get buffer(): ArrayBuffer {
    return this.#made.memory.buffer;
  }

  /** Takes the shard's answer to the offer; the file needs its name no more. */
  prove(answer: Uint8Array): void {
    this.#isProven = this.#made.proven(answer);
    this.#made.unlink();
  }

  /** A part of at least `bytes`, or undefined when there is no room or the system has no memory for it. */
  take(bytes: number): SegmentPart | undefined {
    if (!this.#isProven || this.#closed) return undefined;
    const part = this.#space.take(bytes);
    if (part === undefined || this.#claim(part.at + part.bytes)) return part;
    this.#space.give(part);
    // Whoever writes to memory that is not there is ended by the system.
    this.#space.cap(this.#claimed);
    return undefined;
  }

  give(part: SegmentPart): void {
    this.#space.give(part);
    if (this.#closed) this.#retireIfIdle();
  }

  /** Nobody waits for the call's answer any more, which may still be written to its part. */
  leave(call: number, part: SegmentPart): void {
    if (this.#closed) this.give(part);
    else this.#late.set(call, part);
  }

  /** The answer to a call that nobody waits for is here. */
  arrived(call: number): void {
    const part = this.#late.get(call);
    if (part === undefined) return;
    this.#late.delete(call);
    this.give(part);
  }

  /** The connection is gone, and the shard writes nothing that anybody reads. Answers that are held stay until they are given back. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#made.unlink();
    closeSync(this.#made.descriptor);
    for (const part of this.#late.values()) this.#space.give(part);
    this.#late.clear();
    this.#retireIfIdle();
  }

  #retireIfIdle(): void {
    if (this.#space.idle) this.#made.memory.retire();
  }

  /** Makes sure that the system has memory for all up to byte `end`. */
  #claim(end: number): boolean {
    while (this.#claimed < end) {
      const bytes = Math.min(CLAIM_BYTES, this.#made.bytes - this.#claimed);
      try {
        if (writeSync(this.#made.descriptor, new Uint8Array(bytes), 0, bytes, this.#claimed) < bytes) return false;
      } catch {
        return false;
      }
      this.#claimed += bytes;
    }
    return true;
  }
}
