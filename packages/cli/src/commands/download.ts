// `moevie download VIDEO`: fetches a finished clip, whole or not at all.
import { chooseClipFile, saveClip, slugOf } from "../clip-file.ts";
import { textFlag, type CommandContext, type CommandResult, type RawFlags } from "../command.ts";
import { videoName, withServer } from "../server-connection.ts";
import { artefactLine } from "../video-result.ts";

export async function download(
  context: CommandContext,
  args: readonly string[],
  flags: RawFlags,
): Promise<CommandResult> {
  const name = videoName(args[0] ?? "");
  const outputFlag = textFlag(flags, "output");
  if (outputFlag !== undefined) chooseClipFile(outputFlag, "");
  return await withServer(context, flags, async (client, signal) => {
    const video = await client.getVideo(name, { signal });
    const target = chooseClipFile(
      outputFlag,
      `moevie-${slugOf(video.spec?.prompt ?? "")}-${video.spec?.seed ?? 0}.mp4`,
    );
    await saveClip(target, client.downloadVideo(name, { signal }), { sha256: video.artefact?.sha256, signal });
    return { json: { name, path: target, artefact: video.artefact }, lines: [target, artefactLine(video)] };
  });
}
