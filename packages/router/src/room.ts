// Whether an evaluation fits in memory, before it begins: an estimate from the rows of its shape and the model's width.
import { MoevieError } from "@moevie/contracts";

/** Vectors of the model's width that an evaluation takes for each of its rows, scratch of graphs included: 51 to 57 were measured. */
const VECTORS_PER_ROW = 64;
const VALUE_BYTES = 4;
const RETRY_MS = 1000;
/** Asking the system takes a twentieth of a millisecond: not in every evaluation. */
const LOOK_MS = 1000;

export interface Memory {
  /** Bytes that could be had now; Infinity where that is not known. */
  readonly free: number;
  /** Bytes this process has. */
  readonly own: number;
}

export class Room {
  readonly #width: number;
  readonly #look: () => Memory;
  #seen: Memory = { free: 0, own: 0 };
  #seenMs = -Infinity;
  #underWay = 0;

  /** `width` is the model's. */
  constructor(width: number, look: () => Memory) {
    this.#width = width;
    this.#look = look;
  }

  /** Evaluations of so many rows that there is room for. */
  evaluations(rows: number): number {
    return Math.floor(this.#memory().free / this.#bytes(rows));
  }

  /** Does what needs room. Throws OUT_OF_MEMORY for what could not fit were it alone, QUEUE_FULL for what has to wait until others are done. */
  async within<T>(rows: number, work: () => Promise<T>): Promise<T> {
    this.#check(rows);
    this.#underWay++;
    try {
      return await work();
    } finally {
      this.#underWay--;
    }
  }

  #check(rows: number): void {
    const needed = this.#bytes(rows);
    const { free, own } = this.#memory();
    const wanted = `An evaluation of ${rows} rows takes about ${needed} bytes`;
    if (needed > free + own)
      throw new MoevieError("OUT_OF_MEMORY", `${wanted}; this router could have ${free + own} at most.`);
    if (needed > free && this.#underWay > 0)
      throw new MoevieError("QUEUE_FULL", `${wanted}; ${free} are free beside those under way.`, {
        retryAfterMs: RETRY_MS,
      });
  }

  #bytes(rows: number): number {
    return rows * this.#width * VALUE_BYTES * VECTORS_PER_ROW;
  }

  #memory(): Memory {
    const now = performance.now();
    if (now - this.#seenMs >= LOOK_MS) {
      this.#seen = this.#look();
      this.#seenMs = now;
    }
    return this.#seen;
  }
}
