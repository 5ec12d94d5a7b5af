// One lane of a simulation: its schedules one after the other in a process of its own.
// Arguments: the store, schedules, first seed, name of a planted fault or "". Lines of JSON on stdout: what is told, then the report.
import { STORE_KINDS } from "./ground.ts";
import { MUTATIONS } from "./mutations.ts";
import { runSchedules } from "./run-schedules.ts";

const [asked = "", count = "", first = "", fault = ""] = process.argv.slice(2);
const tell = (line: object): void => void process.stdout.write(`${JSON.stringify(line)}\n`);
const mutation = MUTATIONS.find(({ name }) => name === fault);
const store = STORE_KINDS.find((kind) => kind === asked);
if (store === undefined) throw new Error(`the store is "${asked}"; allowed: ${STORE_KINDS.join(", ")}`);
const options = { store, schedules: Number(count), seed: Number(first), mutation };
tell({ report: await runSchedules({ ...options, onLine: (line) => tell({ line }) }) });
