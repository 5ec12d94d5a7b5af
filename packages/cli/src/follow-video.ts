// Follows a video to its end over the watch stream, telling progress. A stream that breaks is resumed by the client.
import type { VideoClient } from "@moevie/client";
import type { Video } from "@moevie/contracts";
import type { ProgressView } from "./progress-view.ts";

/** Watches until the last state, then answers the video as it is. */
export async function followVideo(
  client: VideoClient,
  name: string,
  view: ProgressView,
  signal: AbortSignal,
): Promise<Video> {
  for await (const event of client.watchVideo(name, { signal })) {
    if (event.progress !== null && event.state === "VIDEO_STATE_RUNNING") view.update(event.progress);
    else if (event.state === "VIDEO_STATE_QUEUED" && !event.heartbeat) view.show("queue", "queued");
  }
  return await client.getVideo(name, { signal });
}
