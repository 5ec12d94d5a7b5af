// Two calls for one answer: who counts, who is cancelled, what is given back.
import { expect, test } from "vitest";
import { hedged, type Hedge } from "./hedge.ts";

/** A call that ends when it is told to; its signal is kept. */
class Asked {
  readonly #answer = Promise.withResolvers<string>();
  signal: AbortSignal | undefined;
  readonly ask = (signal: AbortSignal): Promise<string> => {
    this.signal = signal;
    return this.#answer.promise;
  };
  readonly answer = this.#answer.resolve;
  readonly fail = (text: string): void => this.#answer.reject(new Error(text));
}

function pair(changes: Partial<Hedge<string>> = {}): {
  readonly first: Asked;
  readonly second: Asked;
  readonly discarded: string[];
  readonly both: Promise<void>;
  readonly outcome: Promise<{ answer: string; won: string | undefined }>;
} {
  const [first, second, discarded] = [new Asked(), new Asked(), [] as string[]];
  const both = Promise.withResolvers<void>();
  const outcome = hedged({
    first: first.ask,
    second: (signal) => {
      both.resolve();
      return second.ask(signal);
    },
    lateAfterMs: 1,
    signal: new AbortController().signal,
    discard: (answer) => discarded.push(answer),
    ...changes,
  });
  return { first, second, discarded, both: both.promise, outcome };
}

const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test("a call that answers in time is alone", async () => {
  const { first, second, outcome } = pair({ lateAfterMs: 60_000 });
  first.answer("one");
  expect(await outcome).toEqual({ answer: "one", won: undefined });
  expect(second.signal).toBeUndefined();
});

test.each(["first", "second"] as const)(
  "the %s answers first: the other is cancelled, its answer given back",
  async (won) => {
    const calls = pair();
    await calls.both;
    calls[won].answer("one");
    expect(await calls.outcome).toEqual({ answer: "one", won });
    const other = calls[won === "first" ? "second" : "first"];
    expect(other.signal?.aborted).toBe(true);
    other.answer("two");
    await settled();
    expect(calls.discarded).toEqual(["two"]);
  },
);

test("one that fails leaves it to the other; what the first failed with is thrown once both have", async () => {
  for (const failing of ["first", "second"] as const) {
    const calls = pair();
    await calls.both;
    calls[failing].fail("gone");
    await settled();
    const won = failing === "first" ? "second" : "first";
    calls[won].answer("one");
    expect(await calls.outcome).toEqual({ answer: "one", won });
  }
  const calls = pair();
  await calls.both;
  calls.second.fail("two");
  calls.first.fail("one");
  await expect(calls.outcome).rejects.toThrow("one");
});

test("nobody else to ask: the first is waited for", async () => {
  const asked = Promise.withResolvers<void>();
  const { first, outcome } = pair({
    second: () => {
      asked.resolve();
      return undefined;
    },
  });
  await asked.promise;
  first.answer("one");
  expect(await outcome).toEqual({ answer: "one", won: undefined });
});

test("the caller's signal ends both", async () => {
  const abort = new AbortController();
  const { first, second, both, outcome } = pair({ signal: abort.signal });
  await both;
  abort.abort();
  expect([first.signal?.aborted, second.signal?.aborted]).toEqual([true, true]);
  first.fail("cancelled");
  second.fail("cancelled");
  await expect(outcome).rejects.toThrow("cancelled");
});
