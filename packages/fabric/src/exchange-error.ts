// Makes the typed errors of the exchange. Nothing in this package throws anything else at a caller.
import { MoevieError } from "@moevie/contracts";
import type { Reason } from "@moevie/contracts";

/** The reasons an exchange can fail for. */
export type ExchangeReason = Extract<
  Reason,
  | "INVALID_FIELD"
  | "UNSUPPORTED"
  | "STALE_PLACEMENT"
  | "CREDITS_EXHAUSTED"
  | "OUT_OF_MEMORY"
  | "PEER_UNAVAILABLE"
  | "DRAINING"
  | "EXPERT_MISSING"
  | "DEADLINE"
  | "CANCELLED"
  | "INTERNAL"
>;

const REASONS: readonly ExchangeReason[] = [
  "INVALID_FIELD",
  "UNSUPPORTED",
  "STALE_PLACEMENT",
  "CREDITS_EXHAUSTED",
  "OUT_OF_MEMORY",
  "PEER_UNAVAILABLE",
  "DRAINING",
  "EXPERT_MISSING",
  "DEADLINE",
  "CANCELLED",
  "INTERNAL",
];

/** An error of the exchange; the message names the peer, layer or field and may be shown to a caller. */
export function exchangeError(reason: ExchangeReason, message: string, cause?: unknown): MoevieError {
  return new MoevieError(reason, message, cause === undefined ? {} : { cause });
}

/** The reason a peer sent, or INTERNAL for one this build does not know. */
export function reasonFromWire(text: string): ExchangeReason {
  return REASONS.find((reason) => reason === text) ?? "INTERNAL";
}
