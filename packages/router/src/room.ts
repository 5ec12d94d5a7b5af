// Whether an evaluation fits in memory, before it begins: an estimate from the rows of its shape and the model's width.
import { MoevieError } from "@moevie/contracts";

/** Vectors of the model's width that an evaluation takes for each of its rows, scratch of graphs included: 51 to 57 were measured. */
const VECTORS_PER_ROW = 64;
const VALUE_BYTES = 4;
const RETRY_MS = 1000;

export interface Memory {
  /** Bytes that could be had now; Infinity where that is not known. */
  readonly free: number;
  /** Bytes this process has. */
  readonly own: number;
  /** Whether other evaluations are under way. */
  readonly busy: boolean;
}

/** Bytes an evaluation of so many rows is reckoned to take, `width` the model's. */
export function evaluationBytes(rows: number, width: number): number {
  return rows * width * VALUE_BYTES * VECTORS_PER_ROW;
}

/** Throws OUT_OF_MEMORY for what could not fit were it alone, QUEUE_FULL for what has to wait until others are done. */
export function checkRoom(rows: number, width: number, { free, own, busy }: Memory): void {
  const needed = evaluationBytes(rows, width);
  if (needed > free + own)
    throw new MoevieError(
      "OUT_OF_MEMORY",
      `An evaluation of ${rows} rows takes about ${needed} bytes; this router could have ${Math.floor(free + own)} at most.`,
    );
  if (needed > free && busy)
    throw new MoevieError(
      "QUEUE_FULL",
      `An evaluation of ${rows} rows takes about ${needed} bytes; ${Math.floor(free)} are free beside those under way.`,
      { retryAfterMs: RETRY_MS },
    );
}
