// The router's side of the byte credits of one stream: what may still be sent, and who waits for more, first come first
// served. Waiting is bounded in number and in time.
import { exchangeError } from "./exchange-error.ts";
import { startTimer } from "./timer.ts";

const CREDIT_WAITERS_MAX = 256;

interface Waiter {
  readonly bytes: number;
  readonly settle: (error?: Error) => void;
}

export class ClientCredit {
  #bytes = 0;
  readonly #waiters: Waiter[] = [];

  grant(bytes: number): void {
    this.#bytes += bytes;
    while (this.#waiters[0] !== undefined && this.#waiters[0].bytes <= this.#bytes) {
      const waiter = this.#waiters.shift();
      this.#bytes -= waiter?.bytes ?? 0;
      waiter?.settle();
    }
  }

  /** Takes `bytes` at once, or nothing when there is too little or somebody waits already. */
  take(bytes: number): boolean {
    if (this.#waiters.length > 0 || this.#bytes < bytes) return false;
    this.#bytes -= bytes;
    return true;
  }

  /** Waits for `bytes`. Throws DEADLINE after `timeoutMs`, CREDITS_EXHAUSTED when too many wait, CANCELLED on the signal. */
  wait(bytes: number, timeoutMs: number, signal: AbortSignal | undefined): Promise<void> {
    if (this.#waiters.length >= CREDIT_WAITERS_MAX) {
      return Promise.reject(exchangeError("CREDITS_EXHAUSTED", "too many exchanges wait for this shard's credit"));
    }
    return new Promise((resolve, reject) => {
      const settle = (error?: Error): void => {
        stopTimer();
        signal?.removeEventListener("abort", onAbort);
        const at = this.#waiters.indexOf(waiter);
        if (at >= 0) this.#waiters.splice(at, 1);
        if (error === undefined) resolve();
        else reject(error);
      };
      const waiter: Waiter = { bytes, settle };
      const onAbort = (): void => settle(exchangeError("CANCELLED", "the exchange was cancelled"));
      const stopTimer = startTimer(timeoutMs, () =>
        settle(exchangeError("DEADLINE", `the shard gave no credit for ${bytes} bytes in ${timeoutMs} ms`)),
      );
      signal?.addEventListener("abort", onAbort, { once: true });
      this.#waiters.push(waiter);
    });
  }

  /** Gives back what is unspent above `keepBytes`; returns how much. */
  giveBack(keepBytes: number): number {
    const given = Math.max(0, this.#bytes - keepBytes);
    this.#bytes -= given;
    return given;
  }

  /** The stream is gone: nobody waits any more. */
  fail(error: Error): void {
    for (const waiter of this.#waiters.splice(0)) waiter.settle(error);
    this.#bytes = 0;
  }
}
