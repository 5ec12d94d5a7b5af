// The watch stream: every event after the cursor, then live; heartbeats in silence; ends after the last state.
import {
  MoevieError,
  invalidFields,
  limit,
  violation,
  type VideoEvent,
  type WatchVideoRequest,
} from "@moevie/contracts";
import type { CallInfo, Loose } from "@moevie/runtime";
import type { Gateway } from "./gateway.ts";
import { jobIdOf } from "./names.ts";
import { storeChanged } from "./store-change.ts";
import { eventMessage, heartbeatMessage } from "./video-message.ts";

const FINAL = new Set(["completed", "failed", "cancelled"]);

/** Throws VIDEO_NOT_FOUND, INVALID_FIELD for a cursor it did not give, DRAINING when the gateway goes away. */
export async function* watchVideo(
  gateway: Gateway,
  request: WatchVideoRequest,
  call: CallInfo,
): AsyncIterable<Loose<VideoEvent>> {
  const id = jobIdOf(request.name, "videos");
  let after = cursorOf(request.cursor);
  const { store } = gateway;
  // A cursor past the last event is another video's: events up to it would be lost without a word.
  if (after > 0 && (await store.eventsAfter(id, after - 1, 1)).length === 0) throw wrongCursor(request.cursor);
  let spokeMs = performance.now();
  for (;;) {
    // Read before the events: a change between the two reads is seen by the wait.
    const seen = store.changeCount;
    const events = await store.eventsAfter(id, after);
    for (const event of events) {
      // A failure that was followed by a retry is not the end.
      if (FINAL.has(event.state) && (await store.eventsAfter(id, event.sequence, 1)).length > 0) {
        after = event.sequence;
        continue;
      }
      yield eventMessage(event);
      after = event.sequence;
      spokeMs = performance.now();
      if (FINAL.has(event.state)) return;
    }
    if (events.length > 0) continue;
    const { state, progress } = await store.get(id);
    if (FINAL.has(state.kind)) {
      // It may have ended between the two reads. If not, the cursor is that of its last event: say how it ended and end.
      if ((await store.eventsAfter(id, after, 1)).length > 0) continue;
      const error = state.kind === "failed" ? { error: state.error } : {};
      yield eventMessage({ sequence: after, state: state.kind, progress, ...error });
      return;
    }
    // The silence is this video's, whatever others do.
    const leftMs = spokeMs + limit("watchHeartbeatMs") - performance.now();
    if (leftMs > 0 && (await storeChanged(gateway, call, seen, leftMs))) continue;
    if (gateway.signal.aborted)
      throw new MoevieError("DRAINING", "The gateway is going away; watch again from the last cursor.");
    yield heartbeatMessage(state.kind);
    spokeMs = performance.now();
  }
}

function cursorOf(text: string): number {
  if (text === "") return 0;
  const cursor = Number(text);
  if (Number.isSafeInteger(cursor) && cursor >= 0 && /^\d+$/.test(text)) return cursor;
  throw wrongCursor(text);
}

function wrongCursor(text: string): MoevieError {
  return invalidFields([violation("cursor", text, "empty, or the cursor of an event of this video")]);
}
