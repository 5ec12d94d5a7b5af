// `moevie sim`: schedules of a simulated cluster, by the program in tests/sim.
import { existsSync } from "node:fs";
import { join } from "node:path";
import { textFlag, type CommandContext, type CommandResult, type RawFlags } from "../command.ts";
import { CommandError, UsageError } from "../failure.ts";
import { lastWords, runNode } from "../run-child.ts";
import { parseWholeNumber } from "../video-flags.ts";

const STORES = ["sqlite", "nats"];

interface Report {
  readonly store: string;
  readonly schedules: number;
  readonly jobs: number;
  readonly troubles: number;
  readonly virtualSeconds: number;
  readonly perSecond: number;
  /** Seed of the schedule that broke a promise, and which ones. */
  readonly broken?: number;
  readonly violations?: readonly string[];
}

type Told =
  | { readonly line: string }
  | { readonly report: Report }
  | { readonly unknownFault: string; readonly known: readonly string[] };

export async function sim(context: CommandContext, _args: readonly string[], flags: RawFlags): Promise<CommandResult> {
  const schedules = parseWholeNumber(flags, "schedules", "--schedules", { min: 1, max: 10_000_000, default: 2000 });
  const seed = parseWholeNumber(flags, "seed", "--seed", { min: 1, max: 2 ** 31 - 1, default: 1 });
  const fault = textFlag(flags, "fault") ?? "";
  const store = textFlag(flags, "store") ?? "";
  if (store !== "" && !STORES.includes(store))
    throw new UsageError([{ flag: "--store", value: store, allowed: STORES.join(", ") }]);
  const program = join(context.config.root, "tests", "sim", "main.ts");
  if (!existsSync(program)) throw new CommandError(`${program} is missing: sim runs from the repository`);
  const told: { reports: Report[]; known?: readonly string[] } = { reports: [] };
  const { exitCode, stderr } = await runNode(context, [program, store, `${schedules}`, `${seed}`, fault], {
    capture: true,
    interruption: context.interruption,
    onLine(text) {
      const line = JSON.parse(text) as Told;
      if ("line" in line) context.output.note(line.line);
      else if ("report" in line) told.reports.push(line.report);
      else told.known = line.known;
    },
  });
  if (told.known !== undefined)
    throw new UsageError([
      { flag: "--fault", value: fault, allowed: told.known.map((name) => `"${name}"`).join(", ") },
    ]);
  const { reports } = told;
  if (reports.length === 0) throw new CommandError(`sim ended with ${exitCode}: ${lastWords(stderr)}`);
  const failed = reports.some(({ broken }) => broken !== undefined);
  return { json: { reports }, failed, lines: reports.flatMap((report) => linesOf(report, fault)) };
}

function linesOf(
  { store, schedules, jobs, troubles, virtualSeconds, perSecond, broken, violations = [] }: Report,
  fault: string,
): string[] {
  const again = `moevie sim --store ${store} --seed ${broken} --schedules 1${fault === "" ? "" : ` --fault "${fault}"`}`;
  return [
    `${store}: ${schedules} schedules, ${jobs} jobs, ${troubles} troubles, ${Math.round(virtualSeconds)} virtual seconds, ${perSecond.toFixed(1)} schedules a second`,
    ...(broken === undefined
      ? ["every promise was kept"]
      : [...violations.map((what) => `broken: ${what}`), `again: ${again}`]),
  ];
}
