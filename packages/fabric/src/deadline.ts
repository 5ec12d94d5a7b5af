// How long an exchange may take: a multiple of what exchanges with this shard lately took. Pure but for what it is told.

const EXCHANGE_DEADLINE_MIN_MS = 250;
const EXCHANGE_DEADLINE_MAX_MS = 30_000;
const DEADLINE_P99_FACTOR = 4;
const SAMPLES_MAX = 256;
const SAMPLES_PER_REFRESH = 16;

export class ExchangeDeadline {
  readonly #samples = new Float64Array(SAMPLES_MAX);
  #count = 0;
  #deadlineMs = EXCHANGE_DEADLINE_MAX_MS;

  /** Records an exchange that took `tookMs`. */
  observe(tookMs: number): void {
    this.#samples[this.#count % SAMPLES_MAX] = tookMs;
    this.#count++;
    if (this.#count % SAMPLES_PER_REFRESH === 0) this.#refresh();
  }

  /**
   * clamp(4 × moving p99, 250 ms, 30 s). Until the first sixteen exchanges are in it is the maximum: first runs compile.
   */
  get deadlineMs(): number {
    return this.#deadlineMs;
  }

  #refresh(): void {
    const sorted = this.#samples.slice(0, Math.min(this.#count, SAMPLES_MAX)).sort();
    const p99 = sorted[Math.ceil(sorted.length * 0.99) - 1] ?? EXCHANGE_DEADLINE_MAX_MS;
    const wanted = DEADLINE_P99_FACTOR * p99;
    this.#deadlineMs = Math.min(EXCHANGE_DEADLINE_MAX_MS, Math.max(EXCHANGE_DEADLINE_MIN_MS, Math.ceil(wanted)));
  }
}
