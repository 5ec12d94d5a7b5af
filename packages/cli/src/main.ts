// The process behind `./moevie`: runs one command and exits with its code. Nothing is loaded before it is needed.
import { enableCompileCache } from "node:module";
import { join } from "node:path";
import { systemClock } from "./clock.ts";
import { readCliConfig } from "./config.ts";
import { EXIT, type ExitCode } from "./failure.ts";
import { listenForInterruption } from "./interruption.ts";
import { flushOutput, openOutput } from "./output.ts";

const config = readCliConfig();
enableCompileCache(join(config.cacheDir, "compile"));
const output = openOutput();
const argv = process.argv.slice(2);
const json = argv.includes("--json");

async function fail(thrown: unknown): Promise<ExitCode> {
  const { explainFailure } = await import("./report-failure.ts");
  const report = explainFailure(thrown);
  if (json) output.printObject(report.json);
  for (const line of report.lines) output.note(line);
  if (config.logLevel === "debug" || config.logLevel === "trace")
    output.note(thrown instanceof Error ? (thrown.stack ?? "") : "");
  return report.exitCode;
}

async function end(exitCode: ExitCode): Promise<void> {
  await flushOutput();
  process.exit(exitCode);
}

async function main(): Promise<ExitCode> {
  const { runProgram } = await import("./program.ts");
  let failed = false;
  const outcome = await runProgram(argv, async (load, args, flags) => {
    const command = await load();
    const context = {
      config,
      clock: systemClock,
      output,
      interruption: listenForInterruption(),
      json: flags["json"] === true,
    };
    const result = await command(context, args, flags);
    failed = result.failed === true;
    if (context.json) output.printObject(result.json);
    else for (const line of result.lines) output.print(line);
  });
  if (outcome.help !== undefined) {
    if (outcome.exitCode === EXIT.ok) output.print(outcome.help.trimEnd());
    else output.note(outcome.help.trimEnd());
  }
  if (outcome.problem !== undefined) {
    if (json) output.printObject({ error: { reason: "USAGE", message: outcome.problem } });
    output.note(`moevie: ${outcome.problem}`);
  }
  return failed ? EXIT.failed : outcome.exitCode;
}

for (const event of ["uncaughtException", "unhandledRejection"])
  process.on(event, (thrown: unknown) => void fail(thrown).then(end));
await main().catch(fail).then(end);
