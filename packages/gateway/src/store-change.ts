// A bounded wait for the next change of the store, for calls that wait many times: it leaves no timer and no listener behind.
import { MoevieError } from "@moevie/contracts";
import { pause, type CallInfo } from "@moevie/runtime";
import type { Gateway } from "./gateway.ts";

/** True after a change since `seen`, false after `waitMs` or when the gateway drains. Throws CANCELLED when the caller went away. */
export async function storeChanged(
  { store, signal }: Gateway,
  call: CallInfo,
  seen: number,
  waitMs: number,
): Promise<boolean> {
  const stop = new AbortController();
  const end = (): void => stop.abort();
  const sources = [call.signal, signal];
  for (const source of sources) source.addEventListener("abort", end);
  if (sources.some((source) => source.aborted)) end();
  void pause(waitMs, stop.signal).then(end, () => undefined);
  try {
    await store.waitForChange({ after: seen, signal: stop.signal });
    return true;
  } catch (thrown) {
    if (call.signal.aborted) throw new MoevieError("CANCELLED", "The caller went away.");
    if (stop.signal.aborted) return false;
    throw thrown;
  } finally {
    for (const source of sources) source.removeEventListener("abort", end);
    end();
  }
}
