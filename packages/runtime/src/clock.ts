// The clock of a process: the one place where time comes from for whatever must also run under a clock that a test holds.
import { pause } from "./pause.ts";

export interface Clock {
  /** Milliseconds that only grow, from any beginning: for lengths of time. */
  monotonicMs(): number;
  /** Milliseconds since 1970, for people: it may jump. */
  wallMs(): number;
  /** Resolves after `ms` milliseconds; rejects with the signal's reason when it aborts first. */
  pause(ms: number, signal?: AbortSignal): Promise<void>;
}

export const systemClock: Clock = {
  monotonicMs: () => performance.now(),
  wallMs: () => Date.now(),
  pause,
};
