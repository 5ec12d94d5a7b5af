// One call, and the same of somebody else when its answer is late: the first answer counts, the other call is cancelled and what it
// answers all the same is given back. Knows no shard.
import { pause } from "@moevie/runtime";

export interface Hedge<T> {
  readonly first: (signal: AbortSignal) => Promise<T>;
  /** Called once, when the first is late; undefined: there is nobody else to ask. */
  readonly second: (signal: AbortSignal) => Promise<T> | undefined;
  /** Infinity: never. */
  readonly lateAfterMs: number;
  readonly signal: AbortSignal;
  /** Told of an answer that nobody needs. */
  readonly discard: (answer: T) => void;
}

export interface HedgeOutcome<T> {
  readonly answer: T;
  /** Which answer it is, where both were asked. */
  readonly won: "first" | "second" | undefined;
}

/** Throws what the first call throws, after the second one failed too where there is one. */
export async function hedged<T>({ first, second, lateAfterMs, signal, discard }: Hedge<T>): Promise<HedgeOutcome<T>> {
  if (lateAfterMs === Infinity) return { answer: await first(signal), won: undefined };
  const ends = [new AbortController(), new AbortController()] as const;
  const abort = (): void => ends.forEach((end) => end.abort());
  if (signal.aborted) abort();
  signal.addEventListener("abort", abort, { once: true });
  try {
    const asked = first(ends[0].signal);
    if (!(await isLate(asked, lateAfterMs))) return { answer: await asked, won: undefined };
    const other = second(ends[1].signal);
    if (other === undefined) return { answer: await asked, won: undefined };
    const calls = [
      asked.then((answer) => ({ answer, won: "first" }) as const),
      other.then((answer) => ({ answer, won: "second" }) as const),
    ] as const;
    const { answer, won } = await Promise.any(calls);
    abort();
    calls[won === "first" ? 1 : 0].then((late) => discard(late.answer)).catch(() => undefined);
    return { answer, won };
  } catch (thrown) {
    throw thrown instanceof AggregateError ? thrown.errors[0] : thrown;
  } finally {
    signal.removeEventListener("abort", abort);
  }
}

/** Whether `asked` is still open after so many milliseconds. */
async function isLate(asked: Promise<unknown>, afterMs: number): Promise<boolean> {
  const settled = new AbortController();
  const timer = pause(afterMs, settled.signal).then(
    () => true,
    () => false,
  );
  const done = asked.then(
    () => false,
    () => false,
  );
  const late = await Promise.race([timer, done]);
  settled.abort();
  return late;
}
