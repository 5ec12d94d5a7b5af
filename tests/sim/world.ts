// The simulated world: one queue of events in virtual time and one seeded source of chance. Nothing in a simulation waits for anything
// else, so a seed is a schedule.
import { turn, type Clock } from "@moevie/runtime";

/** Something that will happen, unless it is called off before. */
export interface Event {
  readonly atMs: number;
  readonly order: number;
  readonly run: () => void;
  isOff: boolean;
}

/** A tick comes when all promises are settled and costs a tenth of a turn of the loop, which is for the collector. */
const STEPS_PER_TURN = 64;

/** 32-bit mulberry generator: uniform in [0, 1). */
function seeded(seed: number): () => number {
  let state = (seed ^ 0x9e3779b9) >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

export class World {
  nowMs = 0;
  readonly random: () => number;
  /** What happened, a line each, when asked for. */
  readonly trace: string[] | undefined;
  readonly #heap: Event[] = [];
  #orders = 0;
  #steps = 0;

  constructor(seed: number, isTraced: boolean) {
    this.random = seeded(seed);
    this.trace = isTraced ? [] : undefined;
  }

  tell(line: string): void {
    this.trace?.push(`${this.nowMs.toFixed(1).padStart(8)} ${line}`);
  }

  chance(probability: number): boolean {
    return this.random() < probability;
  }

  between(low: number, high: number): number {
    return low + this.random() * (high - low);
  }

  after(delayMs: number, run: () => void): Event {
    const event = { atMs: this.nowMs + delayMs, order: ++this.#orders, run, isOff: false };
    const heap = this.#heap;
    let at = heap.push(event) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!isBefore(event, heap[parent]!)) break;
      heap[at] = heap[parent]!;
      at = parent;
    }
    heap[at] = event;
    return event;
  }

  wait(delayMs: number): Promise<void> {
    return new Promise((resolve) => void this.after(delayMs, resolve));
  }

  /** Runs event after event until `isOver`, or until there is none before `endMs`. Each runs to where everything waits again. */
  async run(endMs: number, isOver: () => boolean): Promise<void> {
    while (!isOver()) {
      await (this.#steps++ % STEPS_PER_TURN === 0 ? turn() : new Promise((resolve) => process.nextTick(resolve)));
      let next = this.#pop();
      while (next?.isOff === true) next = this.#pop();
      if (next === undefined || next.atMs > endMs) return;
      this.nowMs = next.atMs;
      next.run();
    }
  }

  #pop(): Event | undefined {
    const heap = this.#heap;
    const first = heap[0];
    const last = heap.pop();
    if (first === undefined || last === undefined || heap.length === 0) return first;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && isBefore(heap[child + 1]!, heap[child]!)) child += 1;
      if (!isBefore(heap[child]!, last)) break;
      heap[at] = heap[child]!;
      at = child;
    }
    heap[at] = last;
    return first;
  }
}

function isBefore(one: Event, other: Event): boolean {
  return one.atMs < other.atMs || (one.atMs === other.atMs && one.order < other.order);
}

/** A process: it has a clock of its own, may be killed, and may be stopped for a while without knowing of it. */
export class SimProcess {
  readonly name: string;
  readonly world: World;
  readonly clock: Clock;
  alive = true;
  /** Of its wall clock, against the true one; an operator may set it. */
  skewMs: number;
  /** Times it was stopped. */
  stops = 0;
  #stoppedUntilMs = 0;
  #stopInWrite: { writes: number; readonly ms: number } | undefined;

  constructor(world: World, name: string) {
    this.world = world;
    this.name = name;
    this.skewMs = world.between(-5000, 5000);
    const bootMs = world.between(0, 1e6);
    this.clock = {
      monotonicMs: () => world.nowMs + bootMs,
      wallMs: () => Math.floor(1_700_000_000_000 + world.nowMs + this.skewMs),
      pause: (ms, signal) => this.#pause(ms, signal),
    };
  }

  kill(): void {
    this.alive = false;
  }

  /** As SIGSTOP and SIGCONT do: what came meanwhile is dealt with afterwards, in any order. */
  stop(ms: number): void {
    this.stops += 1;
    this.#stoppedUntilMs = Math.max(this.#stoppedUntilMs, this.world.nowMs + ms);
  }

  /** The same, in the middle of the file that it writes after so many: it goes on with what it began. */
  stopInWrite(writes: number, ms: number): void {
    this.#stopInWrite = { writes, ms };
  }

  /** Called while a file is written. */
  writes(): void {
    const stop = this.#stopInWrite;
    if (stop === undefined || stop.writes-- > 0) return;
    this.#stopInWrite = undefined;
    this.stop(stop.ms);
  }

  /** Runs what reached this process: at once, later when it is stopped, never when it is dead. */
  deliver(run: () => void): void {
    if (!this.alive) return;
    const { world } = this;
    const leftMs = this.#stoppedUntilMs - world.nowMs;
    if (leftMs > 0) world.after(leftMs + world.random(), () => this.deliver(run));
    else run();
  }

  #pause(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted === true) return reject(signal.reason as Error);
      let isOver = false;
      const onAbort = (): void => {
        isOver = true;
        timer.isOff = true;
        reject(signal?.reason as Error);
      };
      const timer = this.world.after(ms, () =>
        this.deliver(() => {
          if (isOver) return;
          isOver = true;
          signal?.removeEventListener("abort", onAbort);
          resolve();
        }),
      );
      signal?.addEventListener("abort", onAbort, { once: true });
    });
  }
}
