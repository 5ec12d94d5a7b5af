// The fabric's one timer: deadlines of exchanges and of waits for credit.

/** Calls `then` after `ms` milliseconds unless the returned function is called first. Does not keep a process alive. */
export function startTimer(ms: number, then: () => void): () => void {
  const timer = setTimeout(then, ms);
  timer.unref();
  return () => clearTimeout(timer);
}
