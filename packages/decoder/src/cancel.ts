// One way to notice a cancelled call between two pieces of work.
import { MoevieError } from "@moevie/contracts";

/** Throws the typed error the signal carries, CANCELLED when it carries none. */
export function throwIfCancelled(signal: AbortSignal): void {
  if (!signal.aborted) return;
  const reason: unknown = signal.reason;
  throw reason instanceof MoevieError
    ? reason
    : new MoevieError("CANCELLED", "The call was cancelled.", { cause: reason });
}
