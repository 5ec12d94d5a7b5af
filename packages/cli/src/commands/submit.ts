// `moevie submit PROMPT`: hands a prompt to a server and does not wait.
import { randomUUID } from "node:crypto";
import { textFlag, type CommandContext, type CommandResult, type RawFlags } from "../command.ts";
import { UsageError } from "../failure.ts";
import { videoName, withServer } from "../server-connection.ts";
import { parseTurn, parseVideoSpec } from "../video-flags.ts";

function requestIdOf(flags: RawFlags): string {
  const text = textFlag(flags, "requestId");
  if (text === undefined) return randomUUID();
  if (/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(text)) return text;
  throw new UsageError([{ flag: "--request-id", value: text, allowed: "a UUID" }]);
}

export async function submit(
  context: CommandContext,
  args: readonly string[],
  flags: RawFlags,
): Promise<CommandResult> {
  const spec = { ...parseVideoSpec(args[0] ?? "", flags), model: textFlag(flags, "model") ?? "" };
  const requestId = requestIdOf(flags);
  const turn = parseTurn(flags);
  const operation = await withServer(context, flags, (client, signal) =>
    client.createVideo(spec, { requestId, ...turn, signal }),
  );
  const name = videoName(operation.name);
  return { json: { name, operation: operation.name, requestId }, lines: [name] };
}
