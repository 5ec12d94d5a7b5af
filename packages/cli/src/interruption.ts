// Turns SIGINT, SIGTERM and SIGHUP into abort signals: the first asks for an orderly end, the second for a quick one.
// Handlers stay installed, so no further signal cuts the clean-up short.

export interface Interruption {
  /** Aborts at the first signal. */
  readonly signal: AbortSignal;
  /** Aborts at the second signal. */
  readonly hurry: AbortSignal;
}

const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/** Begins to listen; call once per process. */
export function listenForInterruption(): Interruption {
  const first = new AbortController();
  const second = new AbortController();
  for (const name of SIGNALS) {
    process.on(name, () => {
      if (first.signal.aborted) second.abort();
      else first.abort();
    });
  }
  return { signal: first.signal, hurry: second.signal };
}
