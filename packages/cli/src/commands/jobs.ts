// `moevie jobs dead` and `moevie jobs retry VIDEO`: for operators, when a failure's cause was mended.
import type { CommandContext, CommandResult, RawFlags } from "../command.ts";
import { videoName, withServer } from "../server-connection.ts";
import { videoJson, videoLines } from "../video-result.ts";
import { listed } from "./list.ts";

export function deadJobs(context: CommandContext, _args: readonly string[], flags: RawFlags): Promise<CommandResult> {
  return listed(context, flags, { deadOnly: true });
}

export async function retryJob(
  context: CommandContext,
  args: readonly string[],
  flags: RawFlags,
): Promise<CommandResult> {
  const name = videoName(args[0] ?? "");
  const video = await withServer(context, flags, (client, signal) => client.retryVideo(name, { signal }));
  return { json: videoJson(video), lines: videoLines(video) };
}
