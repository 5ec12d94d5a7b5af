// The table of states: every event in every state.
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { isFinal, transition, type JobState, type JobTransition } from "./job-state.ts";
import { FACTS } from "./contract-suite.fixture.ts";

const token = fc.integer({ min: 1, max: 3 });
const event: fc.Arbitrary<JobTransition> = fc.oneof(
  fc.record({ kind: fc.constant("release" as const), token, atMs: fc.constant(2) }),
  fc.record({ kind: fc.constant("cancel" as const), atMs: fc.constant(2) }),
  fc.record({ kind: fc.constant("complete" as const), token, atMs: fc.constant(2), artefact: fc.constant(FACTS) }),
  fc.record({
    kind: fc.constant("fail" as const),
    token,
    atMs: fc.constant(2),
    error: fc.constant({ reason: "INTERNAL" as const, message: "x" }),
  }),
  fc.record({ kind: fc.constant("stop" as const), token, atMs: fc.constant(2) }),
);

test("nothing leaves a final state, and only the token of the lease moves a running job but for cancel", () => {
  fc.assert(
    fc.property(fc.array(event, { maxLength: 12 }), (events) => {
      let state: JobState = transition({ kind: "queued" }, { kind: "claim", owner: "o", token: 2, atMs: 1 });
      for (const next of events) {
        const before = state;
        try {
          state = transition(state, next);
        } catch (thrown) {
          expect(thrown).toMatchObject({ reason: "LEASE_LOST" });
        }
        if (isFinal(before)) expect(state).toBe(before);
        if (before.kind === "running" && state.kind !== "running") expect("token" in next && next.token).toBe(2);
      }
    }),
  );
});

test("a job given back or lost with the cancel flag set is cancelled", () => {
  const running = transition({ kind: "queued" }, { kind: "claim", owner: "o", token: 2, atMs: 1 });
  const flagged = transition(running, { kind: "cancel", atMs: 2 });
  expect(flagged).toMatchObject({ kind: "running", cancelRequested: true });
  expect(transition(flagged, { kind: "release", token: 2, atMs: 3 }).kind).toBe("cancelled");
  expect(transition(flagged, { kind: "expire", attempt: 1, atMs: 3 }).kind).toBe("cancelled");
});

function failed(reason: "PEER_UNAVAILABLE" | "UNSUPPORTED"): JobState {
  return { kind: "failed", finishedAtMs: 1, error: { reason, message: "x" } };
}

test("only a job that failed for no fault of its caller is queued again, and only one that waits lapses", () => {
  expect(transition(failed("PEER_UNAVAILABLE"), { kind: "retry" })).toEqual({ kind: "queued" });
  const lapsed = transition({ kind: "queued" }, { kind: "lapse", atMs: 3 });
  expect(lapsed).toMatchObject({ kind: "failed", finishedAtMs: 3, error: { reason: "DEADLINE" } });
  const others: JobState[] = [
    failed("UNSUPPORTED"),
    lapsed,
    { kind: "queued" },
    { kind: "cancelled", finishedAtMs: 1 },
  ];
  for (const state of others)
    expect(() => transition(state, { kind: "retry" })).toThrow("failed for no fault of its caller");
  expect(() => transition(failed("UNSUPPORTED"), { kind: "lapse", atMs: 3 })).toThrow("needs a queued job");
});
