// Bounds how often something may happen: so many times in a span of time.

export class RateBound {
  readonly #timesMax: number;
  readonly #spanMs: number;
  #sinceMs = Number.NEGATIVE_INFINITY;
  #times = 0;

  constructor(timesMax: number, spanMs: number) {
    this.#timesMax = timesMax;
    this.#spanMs = spanMs;
  }

  /** Whether it may happen once more now. */
  take(nowMs: number = performance.now()): boolean {
    if (nowMs - this.#sinceMs >= this.#spanMs) {
      this.#sinceMs = nowMs;
      this.#times = 0;
    }
    return ++this.#times <= this.#timesMax;
  }
}
