// Counts the long calls open at this gateway by kind and refuses one too many: each holds memory and a file or a place in the store.
import { MoevieError, limit } from "@moevie/contracts";

export type LongCall = "watches" | "waits" | "downloads";

export class OpenCalls {
  readonly #openMax: Readonly<Record<LongCall, number>>;
  readonly #open: Record<LongCall, number> = { watches: 0, waits: 0, downloads: 0 };

  constructor(openMax: Partial<Record<LongCall, number>> = {}) {
    this.#openMax = {
      watches: limit("watchesOpenMax"),
      waits: limit("waitsOpenMax"),
      downloads: limit("downloadsOpenMax"),
      ...openMax,
    };
  }

  /** The stream, counted while it is read. Throws TOO_MANY_OPEN_CALLS. */
  async *stream<T>(kind: LongCall, messages: () => AsyncIterable<T>): AsyncIterable<T> {
    this.#enter(kind);
    try {
      yield* messages();
    } finally {
      this.#open[kind]--;
    }
  }

  /** The work, counted until it ends. Throws TOO_MANY_OPEN_CALLS. */
  async during<T>(kind: LongCall, work: () => Promise<T>): Promise<T> {
    this.#enter(kind);
    try {
      return await work();
    } finally {
      this.#open[kind]--;
    }
  }

  #enter(kind: LongCall): void {
    const openMax = this.#openMax[kind];
    if (this.#open[kind] >= openMax)
      throw new MoevieError("TOO_MANY_OPEN_CALLS", `${openMax} ${kind} are open at this gateway, the most it holds.`, {
        retryAfterMs: limit("openCallsRetryAfterMs"),
      });
    this.#open[kind]++;
  }
}
