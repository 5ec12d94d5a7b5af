// How often a checkpoint is written: as often as its cost stays a small share of the steps' time, by what the store took for the last ones.
// Pure: times are passed in.

/** Until one of its size was written: what a store does for each, and bytes a second. */
const SECONDS_ASSUMED = 0.01;
const BYTES_PER_SECOND_ASSUMED = 50e6;
/** The longer of the last two counts, for times vary; so many times the other it was a stall, which says nothing about the next. */
const RECENT = 2;
const STALL = 4;

/** What checkpoints take in this process; all its jobs share it. Sizes are apart by powers of two: a store's own work weighs on small ones most. */
export class StorePace {
  readonly #recent = new Map<number, readonly number[]>();

  /** Seconds that one of `bytes` is expected to take. */
  seconds(bytes: number): number {
    const recent = this.#recent.get(sizeOf(bytes)) ?? [assumed(bytes)];
    return Math.min(Math.max(...recent), STALL * Math.min(...recent));
  }

  took(bytes: number, seconds: number): void {
    const before = this.#recent.get(sizeOf(bytes)) ?? [assumed(bytes)];
    this.#recent.set(sizeOf(bytes), [...before, seconds].slice(-RECENT));
  }
}

/** When one job's next checkpoint is due: once the steps since the last one took its expected seconds over `shareMax`. */
export class CheckpointSpacing {
  readonly #pace: StorePace;
  readonly #stepsMin: number;
  readonly #shareMax: number;
  #steps = 0;
  #stepSeconds = 0;

  constructor(pace: StorePace, { stepsMin, shareMax }: { readonly stepsMin: number; readonly shareMax: number }) {
    this.#pace = pace;
    this.#stepsMin = stepsMin;
    this.#shareMax = shareMax;
  }

  /** One more step, which took so long. */
  stepped(seconds: number): void {
    this.#steps += 1;
    this.#stepSeconds += seconds;
  }

  /** Would a checkpoint of `bytes` be worth it now? */
  isDue(bytes: number): boolean {
    return this.#steps >= this.#stepsMin && this.#pace.seconds(bytes) / this.#shareMax <= this.#stepSeconds;
  }

  /** One is made of the position as it is. */
  begun(): void {
    this.#steps = 0;
    this.#stepSeconds = 0;
  }
}

function sizeOf(bytes: number): number {
  return Math.round(Math.log2(Math.max(1, bytes)));
}

function assumed(bytes: number): number {
  return SECONDS_ASSUMED + bytes / BYTES_PER_SECOND_ASSUMED;
}
