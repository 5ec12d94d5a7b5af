// Repeating a call: what is repeated, how long, and what ends it.
import { describe, expect, it } from "vitest";
import { MoevieError } from "@moevie/contracts";
import { systemClock } from "@moevie/runtime";
import { retryPure, type RetryPolicy } from "./retry.ts";

const POLICY: RetryPolicy = { firstPauseMs: 1, pauseMsMax: 4, totalMsMax: 60_000 };
const away = (retryAfterMs?: number): MoevieError =>
  new MoevieError("PEER_UNAVAILABLE", "away", retryAfterMs === undefined ? {} : { retryAfterMs });

interface Run {
  readonly calls: number;
  readonly retries: readonly string[];
  readonly result: unknown;
}

/** Runs work that throws `errors` one after the other and then answers "done". */
async function run(errors: readonly Error[], policy = POLICY, signal = new AbortController().signal): Promise<Run> {
  let calls = 0;
  const retries: string[] = [];
  const work = (): Promise<string> => {
    const error = errors[calls++];
    return error === undefined ? Promise.resolve("done") : Promise.reject(error);
  };
  const result = await retryPure(work, {
    policy,
    signal,
    clock: systemClock,
    onRetry: ({ reason }) => retries.push(reason),
  }).catch((thrown: unknown) => thrown);
  return { calls, retries, result };
}

describe("retryPure", () => {
  it("goes on until the peer is back, and tells of each time", async () => {
    const errors = [away(), new MoevieError("DEADLINE", "late"), new MoevieError("EXPERT_MISSING", "none")];
    expect(await run(errors)).toEqual({
      calls: 4,
      retries: ["PEER_UNAVAILABLE", "DEADLINE", "EXPERT_MISSING"],
      result: "done",
    });
  });

  it("takes a call that somebody else cancelled for a peer that goes away", async () => {
    expect(await run([new MoevieError("CANCELLED", "closed")])).toEqual({
      calls: 2,
      retries: ["PEER_UNAVAILABLE"],
      result: "done",
    });
  });

  it("does not repeat what cannot get better", async () => {
    const error = new MoevieError("OUT_OF_MEMORY", "too large");
    expect(await run([error])).toEqual({ calls: 1, retries: [], result: error });
  });

  it("ends with the last error when the time is over", async () => {
    const errors = Array.from({ length: 1000 }, () => away());
    const { calls, result } = await run(errors, { firstPauseMs: 1, pauseMsMax: 2, totalMsMax: 20 });
    expect(result).toBe(errors[calls - 1]);
    expect(calls).toBeGreaterThan(1);
    expect(calls).toBeLessThan(30);
  });

  it("does not begin a wait that is longer than the time that is left, whoever asked for it", async () => {
    const error = away(3_600_000);
    expect(await run([error])).toEqual({ calls: 1, retries: [], result: error });
  });

  it("waits as long as the peer asks", async () => {
    const startMs = performance.now();
    expect(await run([away(30)])).toMatchObject({ calls: 2, result: "done" });
    expect(performance.now() - startMs).toBeGreaterThanOrEqual(29);
  });

  it("ends at once with the signal's reason: before a call, in one and in a pause", async () => {
    const reason = new MoevieError("LEASE_LOST", "gone");
    expect(await run([], POLICY, AbortSignal.abort(reason))).toEqual({ calls: 0, retries: [], result: reason });
    const abort = new AbortController();
    const inCall = retryPure(
      () => {
        abort.abort(reason);
        return Promise.reject(away());
      },
      { policy: POLICY, signal: abort.signal, clock: systemClock, onRetry: () => undefined },
    );
    await expect(inCall).rejects.toBe(reason);
    const later = new AbortController();
    const inPause = retryPure(() => Promise.reject(away()), {
      policy: { firstPauseMs: 3_600_000, pauseMsMax: 3_600_000, totalMsMax: 7_200_000 },
      signal: later.signal,
      clock: systemClock,
      onRetry: () => later.abort(reason),
    });
    await expect(inPause).rejects.toBe(reason);
  });
});
