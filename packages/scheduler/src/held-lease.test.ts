// A job that must stop does not wait for a place of checkpoints that hangs.
import { MoevieError } from "@moevie/contracts";
import type { JobStore, Lease } from "@moevie/job-store";
import type { Clock, Logger } from "@moevie/runtime";
import { afterEach, expect, test } from "vitest";
import { HeldLease } from "./held-lease.ts";

const LEASE = { id: "a", token: 1, owner: "test", leaseMs: 10_000 } as Lease;
const RENEW_MS = 2_000;
const PARTS = [Uint8Array.of(1)];
const log = { warn: () => undefined } as unknown as Logger;

let held: HeldLease | undefined;
afterEach(() => held?.end());

/** Pauses end when the test says so. */
class HeldClock implements Clock {
  readonly #pauses = new Map<object, { readonly ms: number; readonly end: () => void }>();
  monotonicMs = (): number => 0;
  wallMs = (): number => 0;

  pause(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const pause = { ms, end: resolve };
      this.#pauses.set(pause, pause);
      signal?.addEventListener("abort", () => {
        this.#pauses.delete(pause);
        reject(signal.reason as Error);
      });
    });
  }

  get waiting(): readonly number[] {
    return [...this.#pauses.values()].map(({ ms }) => ms).toSorted((one, other) => one - other);
  }

  /** Ends the pauses of `ms`. */
  pass(ms: number): void {
    for (const [key, pause] of this.#pauses)
      if (pause.ms === ms) {
        this.#pauses.delete(key);
        pause.end();
      }
  }
}

/** A lease of a store that never finishes a checkpoint, and says that the job was cancelled when it is renewed. */
function leaseOf(
  clock: Clock,
  drain: AbortSignal,
  saved: () => Promise<never> = () => new Promise(() => undefined),
): HeldLease {
  const store = { saveCheckpoint: saved, renew: () => Promise.resolve({ cancelRequested: true }) };
  held = new HeldLease({
    store: store as unknown as JobStore,
    lease: LEASE,
    leaseRenewMs: RENEW_MS,
    drain,
    log,
    clock,
  });
  return held;
}

const turns = async (): Promise<void> => {
  for (let turn = 0; turn < 10; turn++) await Promise.resolve();
};

test("a checkpoint that hangs is not waited for once the job is cancelled", async () => {
  const clock = new HeldClock();
  const lease = leaseOf(clock, new AbortController().signal);
  const kept = lease.checkpoint(PARTS);
  await turns();
  clock.pass(RENEW_MS);
  expect(await kept).toBe(false);
  expect(lease.stopReason?.reason).toBe("CANCELLED");
});

test("a service that drains waits for it for a quarter of its budget", async () => {
  const clock = new HeldClock();
  const drain = new AbortController();
  const lease = leaseOf(clock, drain.signal);
  const kept = lease.checkpoint(PARTS);
  drain.abort(new MoevieError("DRAINING", "The service is going away."));
  await turns();
  expect(clock.waiting).toEqual([RENEW_MS, 5_000]);
  clock.pass(5_000);
  expect(await kept).toBe(false);
  // And for the one that it writes itself.
  const last = lease.checkpoint(PARTS);
  await turns();
  clock.pass(5_000);
  expect(await last).toBe(false);
});

test("one that fails is over at once, and leaves no timer", async () => {
  const clock = new HeldClock();
  const lease = leaseOf(clock, new AbortController().signal, () =>
    Promise.reject(new MoevieError("PEER_UNAVAILABLE", "gone")),
  );
  expect(await lease.checkpoint(PARTS)).toBe(false);
  expect(lease.stopReason).toBeUndefined();
  expect(clock.waiting).toEqual([RENEW_MS]);
});
