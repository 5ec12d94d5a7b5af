// The CLI's only clock and timers. Everything that waits takes a Clock, so tests hold time in their hands.
import { performance } from "node:perf_hooks";
import { setTimeout as timer } from "node:timers/promises";

export interface Clock {
  /** Milliseconds on a clock that never goes back; the zero is arbitrary. */
  nowMs(): number;
  /** Waits; resolves early, without throwing, when the signal aborts. */
  sleep(durationMs: number, signal?: AbortSignal): Promise<void>;
}

export const systemClock: Clock = {
  nowMs: () => performance.now(),
  sleep: async (durationMs, signal) => {
    try {
      await timer(durationMs, undefined, signal === undefined ? {} : { signal });
    } catch (error) {
      if (!(error instanceof Error && error.name === "AbortError")) throw error;
    }
  },
};
