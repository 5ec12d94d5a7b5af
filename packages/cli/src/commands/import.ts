// `moevie import FOLDER --out DIR`: runs the importer as a process of its own.
import { existsSync, statSync } from "node:fs";
import { join, resolve } from "node:path";
import { textFlag, type CommandContext, type CommandResult, type RawFlags } from "../command.ts";
import { CommandError, UsageError } from "../failure.ts";
import { runNode } from "../run-child.ts";

export async function importModel(
  context: CommandContext,
  args: readonly string[],
  flags: RawFlags,
): Promise<CommandResult> {
  const folder = resolve(args[0] ?? "");
  const out = textFlag(flags, "out");
  if (statSync(folder, { throwIfNoEntry: false })?.isDirectory() !== true)
    throw new UsageError([{ flag: "FOLDER", value: args[0] ?? "", allowed: "a folder of weights" }]);
  if (out === undefined || out === "" || existsSync(out))
    throw new UsageError([
      { flag: "--out", value: out ?? "", allowed: "the path of a folder that does not exist yet" },
    ]);
  const entry = join(context.config.root, "packages", "importer", "src", "main.ts");
  const end = await runNode(context, [entry, folder, "--out", resolve(out)], {
    capture: true,
    interruption: context.interruption,
  });
  if (end.exitCode !== 0)
    throw new CommandError(
      `import failed: ${end.stderr.trim().split("\n").at(-1) ?? "no reason given"}`,
      "BUNDLE_CORRUPT",
    );
  return { json: { bundle: resolve(out) }, lines: [resolve(out)] };
}
