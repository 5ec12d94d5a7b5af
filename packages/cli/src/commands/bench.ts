// `moevie bench [NAME]`: runs the programs of tests/bench, each in a process of its own.
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import type { CommandContext, CommandResult } from "../command.ts";
import { CommandError, UsageError } from "../failure.ts";
import { runNode } from "../run-child.ts";

function benchNames(folder: string): string[] {
  if (!existsSync(folder)) return [];
  return readdirSync(folder)
    .filter((name) => name.endsWith(".ts") && !name.endsWith(".test.ts"))
    .map((name) => name.slice(0, -".ts".length))
    .sort();
}

export async function bench(context: CommandContext, args: readonly string[]): Promise<CommandResult> {
  const folder = join(context.config.root, "tests", "bench");
  const known = benchNames(folder);
  const [wanted] = args;
  if (wanted !== undefined && !known.includes(wanted))
    throw new UsageError([
      { flag: "NAME", value: wanted, allowed: known.join(", ") || "nothing: there are no benches here" },
    ]);
  if (known.length === 0) throw new CommandError(`there are no benches in ${folder}`);
  const results: { name: string; exitCode: number; output?: string }[] = [];
  for (const name of wanted === undefined ? known : [wanted]) {
    const { exitCode, stdout } = await runNode(context, [join(folder, `${name}.ts`)], {
      capture: context.json,
      interruption: context.interruption,
    });
    results.push({ name, exitCode, ...(context.json ? { output: stdout } : {}) });
  }
  const failed = results.filter((result) => result.exitCode !== 0).map((result) => result.name);
  return {
    json: { benches: results },
    lines: failed.length === 0 ? [] : [`failed: ${failed.join(", ")}`],
    failed: failed.length > 0,
  };
}
