// `moevie sim`: so many schedules from a seed on, or one with its whole trace; stops at the first that breaks a promise.
// Arguments: schedules, first seed, name of a planted fault or "". Lines of JSON on stdout: what is told, then the report.
import { MUTATIONS } from "./mutations.ts";
import { play } from "./play.ts";

const [count = "2000", first = "1", fault = ""] = process.argv.slice(2);
const tell = (line: object): void => void process.stdout.write(`${JSON.stringify(line)}\n`);
if (fault !== "" && !MUTATIONS.some(({ name }) => name === fault)) {
  tell({ unknownFault: fault, known: MUTATIONS.map(({ name }) => name) });
  process.exit(1);
}
const options = { schedules: Number(count), seed: Number(first), fault };
const report = await play({ ...options, onLine: (line) => tell({ line }) });
tell({ report });
process.exit(report.broken === undefined ? 0 : 1);
