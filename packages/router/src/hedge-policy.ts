// When an answer of a shard is late, whether its rows may go to another one too, and which shards are asked only for what nobody else
// holds. Pure but for what it is told: it asks nobody and has no clock.

export interface HedgePolicyOptions {
  /** Hedges there may be for each exchange; 0: none. */
  readonly share: number;
  /** Least milliseconds after which an answer is late: below it, whoever waits for a processor would be hedged. */
  readonly afterMsMin?: number;
}

const AFTER_MS_MIN = 50;
const LATE_P95_FACTOR = 2;
const SAMPLES_MAX = 128;
/** Fewer say too little; as many more are needed before they are looked at again. */
const SAMPLES_PER_LOOK = 16;
/** Kinds of exchanges a shard is known by; the one that was not seen for longest goes first. */
const KINDS_MAX = 32;
/** Hedges that a calm time earns at most, and what there is to begin with. */
const EARNED_MAX = 10;
/** How long a shard that was late is set aside the first time; doubled each time until it answers in time. */
const ASIDE_MS_MIN = 250;
const ASIDE_MS_MAX = 30_000;

/** What exchanges of one kind with one shard took lately. */
class Times {
  readonly #samples = new Float64Array(SAMPLES_MAX);
  #count = 0;
  p95Ms = Infinity;

  add(tookMs: number): void {
    this.#samples[this.#count % SAMPLES_MAX] = tookMs;
    this.#count++;
    if (this.#count % SAMPLES_PER_LOOK !== 0) return;
    const sorted = this.#samples.slice(0, Math.min(this.#count, SAMPLES_MAX)).sort();
    this.p95Ms = sorted[Math.ceil(sorted.length * 0.95) - 1] ?? Infinity;
  }
}

/** Exchanges that take about as long as each other. */
export interface ExchangeKind {
  readonly name: string;
  /** Its rows and experts, as powers of two; absent: nothing is known of it by what others take. */
  readonly size?: { readonly rowsLog2: number; readonly expertsLog2: number };
}

interface ShardTimes {
  readonly kinds: Map<string, { readonly kind: ExchangeKind; readonly times: Times }>;
  /** Times in a row that it was late. */
  lateTimes: number;
  asideUntilMs: number;
}

export class HedgePolicy {
  readonly #share: number;
  readonly #afterMsMin: number;
  readonly #shards = new Map<number, ShardTimes>();
  #earned = EARNED_MAX;

  constructor({ share, afterMsMin = AFTER_MS_MIN }: HedgePolicyOptions) {
    this.#share = share;
    this.#afterMsMin = afterMsMin;
  }

  /** An exchange begins; Infinity until enough of its kind, or of one it can be judged by, were seen, or where there are no hedges. */
  lateAfterMs(shard: number, kind: ExchangeKind): number {
    if (this.#share === 0) return Infinity;
    this.#earned = Math.min(EARNED_MAX, this.#earned + this.#share);
    return this.#lateAfterMs(this.#of(shard), kind);
  }

  /** An exchange was answered. */
  answered(shard: number, kind: ExchangeKind, tookMs: number): void {
    const of = this.#of(shard);
    if (tookMs <= this.#lateAfterMs(of, kind)) of.lateTimes = 0;
    const known = of.kinds.get(kind.name) ?? { kind, times: new Times() };
    of.kinds.delete(kind.name);
    of.kinds.set(kind.name, known);
    known.times.add(tookMs);
    const [oldest] = of.kinds.keys();
    if (of.kinds.size > KINDS_MAX && oldest !== undefined) of.kinds.delete(oldest);
  }

  /** Whether there may be one more hedge; if so it is counted. */
  take(): boolean {
    if (this.#share === 0 || this.#earned < 1) return false;
    this.#earned--;
    return true;
  }

  /** The shard did not answer in time, or another one answered before it. */
  late(shard: number, nowMs: number): void {
    const of = this.#of(shard);
    // What was under way with it at the same time says the same.
    if (this.#share === 0 || nowMs < of.asideUntilMs) return;
    of.asideUntilMs = nowMs + Math.min(ASIDE_MS_MAX, ASIDE_MS_MIN * 2 ** of.lateTimes);
    of.lateTimes++;
  }

  /** Of the shards `from`, those to ask now: all that are not set aside, or all there are. */
  inTime(from: readonly number[], nowMs: number): readonly number[] {
    if (from.every((shard) => this.#isIn(shard, nowMs))) return from;
    const left = from.filter((shard) => this.#isIn(shard, nowMs));
    return left.length > 0 ? left : from;
  }

  /** The shard is gone for good. */
  forget(shard: number): void {
    this.#shards.delete(shard);
  }

  #isIn(shard: number, nowMs: number): boolean {
    return nowMs >= (this.#shards.get(shard)?.asideUntilMs ?? 0);
  }

  #lateAfterMs(of: ShardTimes, kind: ExchangeKind): number {
    let p95Ms = of.kinds.get(kind.name)?.times.p95Ms ?? Infinity;
    // Several jobs in one batch, or other choices of the gate, make a kind that was not seen before.
    if (p95Ms === Infinity)
      for (const known of of.kinds.values()) p95Ms = Math.min(p95Ms, known.times.p95Ms * timesAsLong(known.kind, kind));
    return Math.max(this.#afterMsMin, LATE_P95_FACTOR * p95Ms);
  }

  #of(shard: number): ShardTimes {
    const known: ShardTimes = this.#shards.get(shard) ?? { kinds: new Map(), lateTimes: 0, asideUntilMs: 0 };
    this.#shards.set(shard, known);
    return known;
  }
}

/** How many times as long as `known` one of `kind` takes at most: as if every row and every expert cost its share anew. */
function timesAsLong({ size: known }: ExchangeKind, { size }: ExchangeKind): number {
  if (known === undefined || size === undefined) return Infinity;
  const [rows, experts] = [size.rowsLog2 - known.rowsLog2, size.expertsLog2 - known.expertsLog2];
  return 2 ** (Math.max(0, rows) + Math.max(0, experts));
}
