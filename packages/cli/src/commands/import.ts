// `moevie import FOLDER --out DIR`: runs the importer as a process of its own and says what came of it.
import { existsSync, statSync } from "node:fs";
import { join, resolve } from "node:path";
import { textFlag, type CommandContext, type CommandResult, type RawFlags } from "../command.ts";
import { CommandError, UsageError, type UsageProblem } from "../failure.ts";
import { lastWords, runNode } from "../run-child.ts";
import { parameterLines, servicesLines } from "../services-lines.ts";
import { shownBytes } from "../shown-bytes.ts";

const PRECISIONS = ["f32", "f16", "bf16"];
const NAME_CHARACTERS_MAX = 100;
const BAR_CHARACTERS = 30;

interface Report {
  readonly bundle: string;
  readonly bytesWritten: number;
  readonly bytesNamed: number;
  readonly notes: readonly string[];
}

/** A line of the importer's stdout. */
type Told = { readonly read: number; readonly total: number } | { readonly report: Report };

/** The importer's arguments. Throws UsageError naming every wrong flag. */
function parseImport(args: readonly string[], flags: RawFlags): { folder: string; out: string; rest: string[] } {
  const problems: UsageProblem[] = [];
  const folder = resolve(args[0] ?? "");
  const [out, name, precision] = ["out", "name", "precision"].map((flag) => textFlag(flags, flag));
  const negativePrompt = textFlag(flags, "negativePrompt");
  if (statSync(folder, { throwIfNoEntry: false })?.isDirectory() !== true)
    problems.push({ flag: "FOLDER", value: args[0] ?? "", allowed: "a folder of weights" });
  if (out === undefined || out === "" || existsSync(out))
    problems.push({ flag: "--out", value: out ?? "", allowed: "the path of a folder that does not exist yet" });
  if (precision !== undefined && !PRECISIONS.includes(precision))
    problems.push({ flag: "--precision", value: precision, allowed: PRECISIONS.join(", ") });
  if (name !== undefined && (name.trim() === "" || name.length > NAME_CHARACTERS_MAX))
    problems.push({ flag: "--name", value: name, allowed: `1 to ${NAME_CHARACTERS_MAX} characters` });
  if (problems.length > 0) throw new UsageError(problems);
  const rest = [
    ...(name === undefined ? [] : [`--name=${name}`]),
    ...(precision === undefined ? [] : [`--precision=${precision}`]),
    ...(negativePrompt === undefined ? [] : [`--negative-prompt=${negativePrompt}`]),
    ...(flags["verify"] === true ? ["--verify"] : []),
  ];
  return { folder, out: resolve(out ?? ""), rest };
}

function progressBar(read: number, total: number): string {
  const share = total === 0 ? 1 : read / total;
  const full = Math.round(share * BAR_CHARACTERS);
  const bar = "█".repeat(full) + "░".repeat(BAR_CHARACTERS - full);
  return `reading weights ${bar} ${Math.floor(share * 100)} % of ${shownBytes(total)}`;
}

export async function importModel(
  context: CommandContext,
  args: readonly string[],
  flags: RawFlags,
): Promise<CommandResult> {
  const { folder, out, rest } = parseImport(args, flags);
  const entry = join(context.config.root, "packages", "importer", "src", "main.ts");
  let report: Report | undefined;
  const end = await runNode(context, [entry, folder, "--out", out, ...rest], {
    capture: true,
    interruption: context.interruption,
    onLine(line) {
      const told = JSON.parse(line) as Told;
      if ("report" in told) report = told.report;
      else if (context.output.interactive) context.output.redraw(progressBar(told.read, told.total));
    },
  });
  if (end.exitCode !== 0 || report === undefined)
    throw new CommandError(`import failed: ${lastWords(end.stderr)}`, "BUNDLE_CORRUPT");
  const { inspectBundle, openBundle } = await import("@moevie/bundle");
  const bundle = await openBundle(report.bundle);
  const summary = await inspectBundle(bundle);
  return {
    json: { ...report, folder, summary },
    lines: [
      report.bundle,
      `written ${shownBytes(report.bytesWritten)}; ${shownBytes(report.bytesNamed)} stay in ${folder}`,
      ...parameterLines(summary),
      ...servicesLines(summary),
      ...report.notes.map((note) => `note: ${note}`),
    ],
  };
}
