// `moevie sim`: so many schedules from a seed on, or one with its whole trace; stops at the first that breaks a promise.
// Arguments: schedules, first seed, name of a planted fault or "". Lines of JSON on stdout: what is told, then the report.
import { MUTATIONS } from "./mutations.ts";
import { runSchedules } from "./run-schedules.ts";

const [count = "2000", first = "1", fault = ""] = process.argv.slice(2);
const tell = (line: object): void => void process.stdout.write(`${JSON.stringify(line)}\n`);
const mutation = MUTATIONS.find(({ name }) => name === fault);
if (fault !== "" && mutation === undefined) {
  tell({ unknownFault: fault, known: MUTATIONS.map(({ name }) => name) });
  process.exit(1);
}
const schedules = Number(count);
const report = await runSchedules({ schedules, seed: Number(first), mutation, onLine: (line) => tell({ line }) });
tell({ report });
process.exit(report.broken === undefined ? 0 : 1);
