// `moevie cancel VIDEO`: asks for the end of a queued or running video.
import type { CommandContext, CommandResult, RawFlags } from "../command.ts";
import { videoName, withServer } from "../server-connection.ts";

export async function cancel(
  context: CommandContext,
  args: readonly string[],
  flags: RawFlags,
): Promise<CommandResult> {
  const name = videoName(args[0] ?? "");
  await withServer(context, flags, (client, signal) => client.cancelVideo(name, { signal }));
  return { json: { name, cancelRequested: true }, lines: [`${name}: cancel asked for`] };
}
