// `moevie delete VIDEO`: removes record and file.
import type { CommandContext, CommandResult, RawFlags } from "../command.ts";
import { videoName, withServer } from "../server-connection.ts";

export async function deleteVideo(
  context: CommandContext,
  args: readonly string[],
  flags: RawFlags,
): Promise<CommandResult> {
  const name = videoName(args[0] ?? "");
  await withServer(context, flags, (client, signal) => client.deleteVideo(name, { signal }));
  return { json: { name, deleted: true }, lines: [`${name}: deleted`] };
}
