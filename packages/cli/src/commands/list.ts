// `moevie list`: one page of videos, newest first.
import { limit } from "@moevie/contracts";
import { textFlag, type CommandContext, type CommandResult, type RawFlags } from "../command.ts";
import { withServer } from "../server-connection.ts";
import { parseWholeNumber } from "../video-flags.ts";
import { videoJson, videoLines, videoRow } from "../video-result.ts";

export function list(context: CommandContext, _args: readonly string[], flags: RawFlags): Promise<CommandResult> {
  return listed(context, flags, { deadOnly: false });
}

/** One page; dead videos with what is known of each. */
export async function listed(
  context: CommandContext,
  flags: RawFlags,
  { deadOnly }: { readonly deadOnly: boolean },
): Promise<CommandResult> {
  const pageSize = parseWholeNumber(flags, "pageSize", "--page-size", {
    min: 1,
    max: limit("listPageSizeMax"),
    default: limit("listPageSizeDefault"),
  });
  const pageToken = textFlag(flags, "pageToken") ?? "";
  const page = await withServer(context, flags, (client, signal) =>
    client.listVideos({ pageSize, pageToken, deadOnly }, { signal }),
  );
  const lines = page.videos.flatMap(deadOnly ? videoLines : videoRow);
  if (lines.length === 0) lines.push("no videos");
  if (page.nextPageToken !== "") lines.push(`more: --page-token ${page.nextPageToken}`);
  return { json: { videos: page.videos.map(videoJson), nextPageToken: page.nextPageToken }, lines };
}
