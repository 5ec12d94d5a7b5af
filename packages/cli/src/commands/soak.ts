// `moevie soak`: hurts a cluster of its own so many times while it makes clips, by the program in tests/chaos.
import { existsSync } from "node:fs";
import { join } from "node:path";
import { textFlag, type CommandContext, type CommandResult, type RawFlags } from "../command.ts";
import { CommandError, UsageError } from "../failure.ts";
import { lastWords, runNode } from "../run-child.ts";
import { parseWholeNumber } from "../video-flags.ts";

const STORES = ["sqlite", "nats"];

interface Report {
  readonly isSound: boolean;
  readonly clips: number;
  readonly wrong: readonly string[];
  readonly swept: readonly string[];
  readonly jobs: { readonly asked: number; readonly stored: number };
  readonly calmMs: number;
  /** By kind of fault. */
  readonly costs: Readonly<
    Record<string, { readonly count: number; readonly medianMs: number; readonly worstMs: number }>
  >;
}

export async function soak(context: CommandContext, _args: readonly string[], flags: RawFlags): Promise<CommandResult> {
  const kills = parseWholeNumber(flags, "kills", "--kills", { min: 1, max: 100_000, default: 200 });
  const seed = parseWholeNumber(flags, "seed", "--seed", { min: 0, max: 2 ** 31 - 1, default: 1 });
  const store = textFlag(flags, "store") ?? "sqlite";
  if (!STORES.includes(store)) throw new UsageError([{ flag: "--store", value: store, allowed: STORES.join(", ") }]);
  const program = join(context.config.root, "tests", "chaos", "soak.ts");
  if (!existsSync(program)) throw new CommandError(`${program} is missing: soak runs from the repository`);
  let report: Report | undefined;
  const { exitCode, stderr } = await runNode(context, [program, `${kills}`, store, `${seed}`], {
    capture: true,
    interruption: context.interruption,
    onLine(line) {
      const told = JSON.parse(line) as { readonly fault: string } | { readonly report: Report };
      if ("report" in told) report = told.report;
      else context.output.note(told.fault);
    },
  });
  if (report === undefined) throw new CommandError(`soak ended with ${exitCode}: ${lastWords(stderr)}`);
  return {
    json: { ...report },
    failed: !report.isSound,
    lines: [
      ...report.wrong.map((wrong) => `wrong: ${wrong}`),
      `${report.clips} clips among ${kills} faults, seed ${seed}, jobs in ${store}: ${report.isSound ? "all sound" : "NOT sound"}`,
      `${report.jobs.asked} jobs asked for, ${report.jobs.stored} in the store, ${report.wrong.length} things wrong, ${report.swept.length} files left to a sweep`,
      `${report.calmMs} ms a clip when calm; what a fault added, median and worst:`,
      ...Object.entries(report.costs).map(
        ([kind, { count, medianMs, worstMs }]) => `  ${kind.padEnd(24)} ${count} times  ${medianMs} ms  ${worstMs} ms`,
      ),
    ],
  };
}
