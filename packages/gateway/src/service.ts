// VideoService: each method finds its step and speaks the public messages. Keeps nothing between calls.
import type { Handlers } from "@moevie/runtime";
import { isFinal } from "@moevie/job-store";
import { limit } from "@moevie/contracts";
import { openClip } from "./clip-bytes.ts";
import { createVideo } from "./create-video.ts";
import type { Gateway } from "./gateway.ts";
import { jobIdOf } from "./names.ts";
import { OpenWatches } from "./open-watches.ts";
import { errorStatus } from "./operations.ts";
import { pageSizeOf } from "./page-size.ts";
import { checkedOperation, operationMessage, videoMessage } from "./video-message.ts";
import { watchVideo } from "./watch-video.ts";

export function videoHandlers(gateway: Gateway): Handlers<"moevie.v1.VideoService"> {
  const { store } = gateway;
  const watches = new OpenWatches();
  return {
    CreateVideo: async (request, call) => {
      const accepted = await createVideo(gateway, request, call);
      return "state" in accepted ? operationMessage(accepted, errorStatus) : checkedOperation(accepted);
    },
    GetVideo: async ({ name }) => videoMessage(await store.get(jobIdOf(name, "videos"))),
    ListVideos: async ({ pageSize, pageToken }) => {
      const page = await store.list({ pageSize: pageSizeOf(pageSize), pageToken });
      return { videos: page.jobs.map(videoMessage), nextPageToken: page.nextPageToken };
    },
    DeleteVideo: async ({ name }) => {
      const job = await store.get(jobIdOf(name, "videos"));
      if (!isFinal(job.state)) await store.requestCancel(job.id);
      await store.delete(job.id);
      return {};
    },
    WatchVideo: (request, call) => watches.bounded(watchVideo(gateway, request, call)),
    DownloadVideo: async function* ({ name }) {
      const clip = await openClip(gateway, jobIdOf(name, "videos"));
      for await (const part of clip.read()) {
        const bytes = part as Buffer;
        for (let at = 0; at < bytes.byteLength; at += limit("tensorChunkBytesMax"))
          yield { chunk: bytes.subarray(at, at + limit("tensorChunkBytesMax")) };
      }
    },
  };
}
