// How long a request was on its way to a shard, told from the answer's way back although two hosts' clocks have nothing in common. Knows
// no stream.

/** What the fastest exchange says of the clocks counts for one window more than its own: clocks of two hosts drift apart. */
const WINDOW_US = 5_000_000;

const BASE_US = Number(process.hrtime.bigint()) / 1000 - performance.now() * 1000;

/** CLOCK_MONOTONIC, which processes of one host share, in microseconds modulo 2^32. */
export function monotonicUs(): number {
  return Math.floor(BASE_US + performance.now() * 1000) >>> 0;
}

/** An exchange by the clocks of both ends, in microseconds modulo 2^32. */
export interface Passage {
  /** When the router began to send, by its clock. */
  readonly sentUs: number;
  /** When the request was whole at the shard, by the shard's clock. */
  readonly arrivedUs: number;
  /** Time at the shard. */
  readonly heldUs: number;
  /** When the answer was whole, by the router's clock. */
  readonly answeredUs: number;
}

interface Fastest {
  readonly wireUs: number;
  /** Shard's clock less router's, if this exchange took as long out as back. */
  readonly offsetUs: number;
}

export class WireTime {
  readonly #oneClock: boolean;
  #fastest: Fastest | undefined;
  #before: Fastest | undefined;
  #windowUs = 0;

  /**
   * `oneClock`: both ends are on one host. Else the clocks' offset is taken from the exchange of the last seconds that was on the wire
   * for the shortest time, as if its ways out and back were equal (as NTP does): wrong by half of that time at most.
   */
  constructor(oneClock: boolean) {
    this.#oneClock = oneClock;
  }

  /** Microseconds on the way to the shard, from 0 to all of the time on the wire. */
  upUs({ sentUs, arrivedUs, heldUs, answeredUs }: Passage): number {
    const wireUs = Math.max(0, ((answeredUs - sentUs) | 0) - heldUs);
    const apartUs = (arrivedUs - sentUs) | 0;
    const offsetUs = this.#oneClock ? 0 : this.#offset({ wireUs, offsetUs: apartUs - wireUs / 2 }, answeredUs);
    // The difference of two numbers modulo 2^32, without the fraction lost.
    const upUs = apartUs - offsetUs - 2 ** 32 * Math.round((apartUs - offsetUs) / 2 ** 32);
    return Math.min(wireUs, Math.max(0, upUs));
  }

  #offset(exchange: Fastest, nowUs: number): number {
    const ageUs = (nowUs - this.#windowUs) >>> 0;
    if (ageUs > WINDOW_US || this.#fastest === undefined) {
      // After a pause nothing of before counts: the clocks may have drifted.
      this.#before = ageUs > 2 * WINDOW_US ? undefined : this.#fastest;
      this.#fastest = exchange;
      this.#windowUs = nowUs;
    } else if (exchange.wireUs < this.#fastest.wireUs) this.#fastest = exchange;
    const best =
      this.#before !== undefined && this.#before.wireUs < this.#fastest.wireUs ? this.#before : this.#fastest;
    return best.offsetUs;
  }
}
