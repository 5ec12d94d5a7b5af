// `moevie sim`: so many schedules from a seed on, or one with its whole trace; stops at the first that breaks a promise.
// Arguments: the store or "" for both in turn, schedules, first seed, name of a planted fault or "". Lines of JSON on stdout: what is told,
// then a report for each store.
import { STORE_KINDS } from "./ground.ts";
import { MUTATIONS } from "./mutations.ts";
import { play } from "./play.ts";

const [asked = "", count = "2000", first = "1", fault = ""] = process.argv.slice(2);
const tell = (line: object): void => void process.stdout.write(`${JSON.stringify(line)}\n`);
const stores = STORE_KINDS.filter((kind) => asked === "" || kind === asked);
const known = MUTATIONS.filter(({ only }) => only === undefined || stores.includes(only));
const planted = known.find(({ name }) => name === fault);
if (fault !== "" && planted === undefined) {
  tell({ unknownFault: fault, known: known.map(({ name }) => name) });
  process.exit(1);
}
let isBroken = false;
for (const store of stores) {
  if (isBroken || (planted?.only !== undefined && planted.only !== store)) continue;
  const options = { store, schedules: Number(count), seed: Number(first), fault };
  const report = await play({ ...options, onLine: (line) => tell({ line: `${store}: ${line}` }) });
  tell({ report: { store, ...report } });
  isBroken = report.broken !== undefined;
}
process.exit(isBroken ? 1 : 0);
