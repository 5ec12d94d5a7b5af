// `moevie watch VIDEO`: progress until the video is finished; exit 0 when it completed.
import type { CommandContext, CommandResult, RawFlags } from "../command.ts";
import { followVideo } from "../follow-video.ts";
import { ProgressView } from "../progress-view.ts";
import { videoName, withServer } from "../server-connection.ts";
import { videoJson, videoLines } from "../video-result.ts";

export async function watch(context: CommandContext, args: readonly string[], flags: RawFlags): Promise<CommandResult> {
  const name = videoName(args[0] ?? "");
  const view = new ProgressView(context.output, context.json);
  const video = await withServer(context, flags, (client, signal) => followVideo(client, name, view, signal));
  return { json: videoJson(video), lines: videoLines(video), failed: video.state !== "VIDEO_STATE_COMPLETED" };
}
