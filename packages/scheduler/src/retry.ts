// The one owner of retries: pure calls to peers are repeated with back-off while the peer is away. Nothing beneath repeats.
import { MoevieError, asMoevieError } from "@moevie/contracts";
import type { Clock } from "@moevie/runtime";

export interface RetryPolicy {
  readonly firstPauseMs: number;
  readonly pauseMsMax: number;
  /** From the first failure on; beyond it the last error is thrown. */
  readonly totalMsMax: number;
}

export interface RetryOptions {
  readonly policy: RetryPolicy;
  /** Ends waiting and working; its reason is thrown. */
  readonly signal: AbortSignal;
  readonly clock: Clock;
  readonly onRetry: (error: MoevieError) => void;
}

const PAUSE_GROWTH = 2;

/** Runs `work` until it succeeds, fails for good, or the policy's time is over. */
export async function retryPure<T>(
  work: () => Promise<T>,
  { policy, signal, clock, onRetry }: RetryOptions,
): Promise<T> {
  let firstFailureMs: number | undefined;
  for (let pauseMs = policy.firstPauseMs; ; pauseMs = Math.min(pauseMs * PAUSE_GROWTH, policy.pauseMsMax)) {
    signal.throwIfAborted();
    try {
      return await work();
    } catch (thrown) {
      signal.throwIfAborted();
      const error = peerError(thrown);
      firstFailureMs ??= clock.monotonicMs();
      const waitMs = Math.max(pauseMs, error.retryAfterMs ?? 0);
      if (!error.retryable || clock.monotonicMs() - firstFailureMs + waitMs > policy.totalMsMax) throw error;
      onRetry(error);
      await clock.pause(waitMs, signal);
    }
  }
}

/** A call that ended as cancelled though nobody here cancelled it: the peer closed it while going away. */
function peerError(thrown: unknown): MoevieError {
  const error = asMoevieError(thrown);
  if (error.reason !== "CANCELLED") return error;
  return new MoevieError("PEER_UNAVAILABLE", "A service ended the call while going away.", { cause: error });
}
