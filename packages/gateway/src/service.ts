// VideoService: each method finds its step and speaks the public messages. Keeps nothing between calls.
import type { Handlers } from "@moevie/runtime";
import { clipChunks } from "./clip-bytes.ts";
import { createVideo } from "./create-video.ts";
import type { Gateway } from "./gateway.ts";
import { jobIdOf } from "./names.ts";
import { pageSizeOf } from "./page-size.ts";
import { checkedOperation, operationMessage, videoMessage } from "./video-message.ts";
import { watchVideo } from "./watch-video.ts";

export function videoHandlers(gateway: Gateway): Handlers<"moevie.v1.VideoService"> {
  const { store, calls } = gateway;
  return {
    CreateVideo: async (request, call) => {
      const accepted = await createVideo(gateway, request, call);
      return "state" in accepted ? operationMessage(accepted) : checkedOperation(accepted);
    },
    GetVideo: async ({ name }) => videoMessage(await store.get(jobIdOf(name, "videos"))),
    ListVideos: async ({ pageSize, pageToken, deadOnly }) => {
      const page = await store.list({ pageSize: pageSizeOf(pageSize), pageToken, deadOnly });
      return { videos: page.jobs.map(videoMessage), nextPageToken: page.nextPageToken };
    },
    DeleteVideo: async ({ name }) => {
      await store.delete(jobIdOf(name, "videos"));
      return {};
    },
    RetryVideo: async ({ name }) => videoMessage(await store.retry(jobIdOf(name, "videos"))),
    WatchVideo: (request, call) => calls.stream("watches", () => watchVideo(gateway, request, call)),
    DownloadVideo: ({ name }) => calls.stream("downloads", () => clipChunks(gateway, jobIdOf(name, "videos"))),
  };
}
