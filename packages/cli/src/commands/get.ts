// `moevie get VIDEO`.
import type { CommandContext, CommandResult, RawFlags } from "../command.ts";
import { videoName, withServer } from "../server-connection.ts";
import { videoJson, videoLines } from "../video-result.ts";

export async function get(context: CommandContext, args: readonly string[], flags: RawFlags): Promise<CommandResult> {
  const name = videoName(args[0] ?? "");
  const video = await withServer(context, flags, (client, signal) => client.getVideo(name, { signal }));
  return { json: videoJson(video), lines: videoLines(video) };
}
