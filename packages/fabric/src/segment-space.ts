// Which parts of a segment are in use. Pure. The lowest free part is taken, so that a segment uses no more memory than exchanges that
// are under way at once need, and uses the same again while it is in the cache.

/** Parts begin at multiples of this: a line of the cache. */
const PART_BYTES = 64;

export interface SegmentPart {
  readonly at: number;
  readonly bytes: number;
}

export class SegmentSpace {
  readonly #start: number;
  #end: number;
  /** Parts in use, ascending. */
  readonly #used: SegmentPart[] = [];

  /** Parts lie from byte `start` to `end`. */
  constructor(start: number, end: number) {
    this.#start = start;
    this.#end = end;
  }

  /** A part of at least `bytes`, or undefined when there is no room. */
  take(bytes: number): SegmentPart | undefined {
    const size = Math.ceil(bytes / PART_BYTES) * PART_BYTES;
    let at = this.#start;
    let place = 0;
    for (const used of this.#used) {
      if (used.at - at >= size) break;
      at = used.at + used.bytes;
      place++;
    }
    if (at + size > this.#end) return undefined;
    const part = { at, bytes: size };
    this.#used.splice(place, 0, part);
    return part;
  }

  give(part: SegmentPart): void {
    const place = this.#used.indexOf(part);
    if (place >= 0) this.#used.splice(place, 1);
  }

  /** Nothing from byte `end` on is taken any more. */
  cap(end: number): void {
    this.#end = Math.min(this.#end, end);
  }

  get idle(): boolean {
    return this.#used.length === 0;
  }
}
