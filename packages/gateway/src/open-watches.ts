// Counts the open watch streams of this gateway and refuses one too many: each holds a call and polls the store.
import { MoevieError, limit } from "@moevie/contracts";

export class OpenWatches {
  readonly #openMax: number;
  #open = 0;

  constructor(openMax: number = limit("watchesOpenMax")) {
    this.#openMax = openMax;
  }

  /** The stream, counted while it is read. Throws WATCHES_FULL where too many are open. */
  async *bounded<T>(watch: AsyncIterable<T>): AsyncIterable<T> {
    if (this.#open >= this.#openMax)
      throw new MoevieError("WATCHES_FULL", `${this.#openMax} watch streams are open at this gateway.`, {
        retryAfterMs: limit("watchesRetryAfterMs"),
      });
    this.#open++;
    try {
      yield* watch;
    } finally {
      this.#open--;
    }
  }
}
