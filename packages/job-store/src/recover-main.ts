// `moevie store check` and `moevie store recover`: arguments are the verb and the data folder, one line of JSON on stdout is the answer.
import { asMoevieError, MoevieError } from "@moevie/contracts";
import { systemClock } from "@moevie/runtime";
import { checkStore, recoverStore } from "./sqlite-recover.ts";

const [verb = "", data = ""] = process.argv.slice(2);
const tell = (answer: object): void => void process.stdout.write(`${JSON.stringify(answer)}\n`);
try {
  if (verb === "check") tell({ check: checkStore(data) });
  else if (verb === "recover") tell({ recovery: recoverStore(data, systemClock.wallMs()) });
  else throw new MoevieError("CONFIG_INVALID", `the verb is "${verb}"; allowed: check, recover`);
} catch (thrown) {
  const { reason, message } = asMoevieError(thrown);
  tell({ error: { reason, message } });
}
