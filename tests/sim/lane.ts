// One lane of a simulation: its schedules one after the other in a process of its own.
// Arguments: schedules, first seed, name of a planted fault or "". Lines of JSON on stdout: what is told, then the report.
import { MUTATIONS } from "./mutations.ts";
import { runSchedules } from "./run-schedules.ts";

const [count = "", first = "", fault = ""] = process.argv.slice(2);
const tell = (line: object): void => void process.stdout.write(`${JSON.stringify(line)}\n`);
const mutation = MUTATIONS.find(({ name }) => name === fault);
const options = { schedules: Number(count), seed: Number(first), mutation };
tell({ report: await runSchedules({ ...options, onLine: (line) => tell({ line }) }) });
