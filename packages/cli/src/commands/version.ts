// `moevie version`.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { CommandContext, CommandResult } from "../command.ts";

export async function version(context: CommandContext): Promise<CommandResult> {
  const facts = JSON.parse(readFileSync(join(context.config.root, "package.json"), "utf8")) as { version: string };
  const json = { version: facts.version, node: process.versions.node, platform: `${process.platform}-${process.arch}` };
  return Promise.resolve({ json, lines: [`moevie ${json.version} (Node ${json.node}, ${json.platform})`] });
}
