// One evaluation on a Denoise stream: its deadline runs on the scheduler's clock and ends with it.
import { describe, expect, it } from "vitest";
import { MoevieError, limit } from "@moevie/contracts";
import type { Clock } from "@moevie/runtime";
import { DenoiseLanes, type DenoiseLane } from "./denoise-stream.ts";
import type { Context } from "./encode.ts";

const LATENT = Float32Array.of(1, 2);
const SHAPE = [1, 1, 1, 2];
const DEADLINE_MS = 600_000;
const HEAD = {
  bundleDigest: "d",
  latent: { elementType: "ELEMENT_TYPE_F32" as const, shape: SHAPE },
  timestep: 500,
  contextHash: "h",
  branch: "BRANCH_CONDITIONAL" as const,
  origin: 0,
  variant: "standard",
  deadlineMs: DEADLINE_MS,
  traceparent: "",
};
const CONTEXT: Context = { hash: "h", shape: [1, 1], rows: Buffer.alloc(4) };

/** A clock whose pauses end when the test says so. */
class HeldClock {
  nowMs = 0;
  readonly #pauses = new Set<{ readonly ms: number; readonly end: () => void }>();
  readonly clock: Clock = {
    monotonicMs: () => this.nowMs,
    wallMs: () => 0,
    pause: (ms, signal) =>
      new Promise((resolve, reject) => {
        const pause = { ms, end: resolve };
        this.#pauses.add(pause);
        signal?.addEventListener("abort", () => {
          this.#pauses.delete(pause);
          reject(signal.reason as Error);
        });
      }),
  };

  get waiting(): readonly number[] {
    return [...this.#pauses].map(({ ms }) => ms);
  }

  pass(): void {
    for (const { end } of this.#pauses) end();
  }
}

/** A lane whose router answers the latent itself, or never; `onStream` hears of each stream's beginning and end. */
function laneOf(clock: Clock, isAwake: boolean, onStream: (what: string) => void = () => undefined): DenoiseLane {
  const router = {
    open: () => {
      onStream("opened");
      const { promise: cancelled, reject } = Promise.withResolvers<never>();
      cancelled.catch(() => undefined);
      let parts = 0;
      return {
        send: () => Promise.resolve(),
        receive: () => {
          if (!isAwake) return cancelled;
          return Promise.resolve(
            parts++ % 2 === 0 ? { head: { velocity: HEAD.latent } } : { chunk: Buffer.from(LATENT.slice().buffer) },
          );
        },
        end: () => onStream("ended"),
        cancel: () => reject(new MoevieError("CANCELLED", "The call was cancelled.")),
      };
    },
  };
  const [lane] = new DenoiseLanes(router as unknown as ConstructorParameters<typeof DenoiseLanes>[0], "", clock, 1).all;
  if (lane === undefined) throw new Error("no lane");
  return lane;
}

describe("an evaluation", () => {
  const { signal } = new AbortController();

  it("leaves no timer and no listener behind: a job makes thousands within one deadline", async () => {
    const held = new HeldClock();
    const { conditional } = laneOf(held.clock, true);
    for (let step = 0; step < 50; step++)
      expect(await conditional.evaluate(HEAD, LATENT, CONTEXT, signal)).toEqual(LATENT);
    await Promise.resolve();
    expect(held.waiting).toEqual([]);
  });

  it("that is not answered ends with DEADLINE by the scheduler's clock", async () => {
    const held = new HeldClock();
    const { conditional } = laneOf(held.clock, false);
    const evaluation = conditional.evaluate(HEAD, LATENT, CONTEXT, signal);
    expect(held.waiting).toEqual([DEADLINE_MS]);
    held.pass();
    await expect(evaluation).rejects.toMatchObject({ reason: "DEADLINE" });
  });

  it("that is given up ends with the signal's reason and leaves no timer", async () => {
    const held = new HeldClock();
    const { conditional } = laneOf(held.clock, false);
    const stop = new AbortController();
    const evaluation = conditional.evaluate(HEAD, LATENT, CONTEXT, stop.signal);
    stop.abort(new MoevieError("LEASE_LOST", "Another scheduler owns the job now."));
    await expect(evaluation).rejects.toMatchObject({ reason: "LEASE_LOST" });
    expect(held.waiting).toEqual([]);
  });

  it("goes on a new stream when the old one has been open for long, and the old one is ended", async () => {
    const held = new HeldClock();
    const streams: string[] = [];
    const { conditional } = laneOf(held.clock, true, (what) => streams.push(what));
    for (held.nowMs = 0; held.nowMs <= 3 * limit("silenceMsMax"); held.nowMs += limit("silenceMsMax") / 2)
      await conditional.evaluate(HEAD, LATENT, CONTEXT, signal);
    conditional.close();
    expect(streams).toEqual(["opened", "ended", "opened", "ended", "opened", "ended"]);
  });
});
