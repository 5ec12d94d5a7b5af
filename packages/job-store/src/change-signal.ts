// Tells waiters of this process that something in the store changed. Holds no records and no timers.

export class ChangeSignal {
  readonly #waiters = new Set<() => void>();
  #ended: Error | undefined;
  /** Grows with every change. */
  count = 0;

  changed(): void {
    this.count += 1;
    for (const wake of this.#waiters) wake();
  }

  /** Every wait, now and later, rejects with `error`. */
  end(error: Error): void {
    this.#ended ??= error;
    for (const wake of this.#waiters) wake();
  }

  /** Resolves when `count` is above `after`; rejects when the signal aborts or the store ended. */
  async wait(after: number, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    while (this.count <= after) {
      if (this.#ended !== undefined) throw this.#ended;
      await new Promise<void>((resolve, reject) => {
        const finish = (settle: () => void): void => {
          this.#waiters.delete(wake);
          signal.removeEventListener("abort", abort);
          settle();
        };
        const wake = (): void => finish(resolve);
        const abort = (): void => finish(() => reject(signal.reason as Error));
        this.#waiters.add(wake);
        signal.addEventListener("abort", abort, { once: true });
      });
    }
  }
}
