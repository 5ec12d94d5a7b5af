// Runs one import as a process of its own. Exit 0 done, 1 refused, 2 wrong use. No stack traces. On stdout, a JSON object a line: {read, total}
// while files are read for their hashes, {report} at the end.
import { parseArgs } from "node:util";
import { importModel, type ImportOptions } from "./import-model.ts";

const USAGE =
  "usage: main.ts FOLDER --out DIR [--name NAME] [--precision f32|f16|bf16] [--negative-prompt TEXT] [--verify]";
const PRECISIONS = ["f32", "f16", "bf16"] as const;
/** Between two lines of progress. */
const PROGRESS_MS = 200;

type Asked = { readonly folder: string; readonly out: string; readonly options: ImportOptions };

/** Throws Error that says what is wrong with the arguments. */
function parse(): Asked {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      out: { type: "string" },
      name: { type: "string" },
      precision: { type: "string" },
      "negative-prompt": { type: "string" },
      verify: { type: "boolean" },
    },
  });
  const [folder, ...more] = positionals;
  const { out, name, verify } = values;
  if (folder === undefined || out === undefined || more.length > 0) throw new Error("FOLDER and --out are needed");
  const precision = PRECISIONS.find((known) => known === values.precision);
  if (values.precision !== undefined && precision === undefined)
    throw new Error(`--precision is "${values.precision}", expected ${PRECISIONS.join(", ")}`);
  return { folder, out, options: { name, precision, verify, negativePrompt: values["negative-prompt"] } };
}

/** Tells of bytes read, now and then. */
function progress(): (read: number, total: number) => void {
  let toldMs = 0;
  return (read, total) => {
    const nowMs = performance.now();
    if (nowMs - toldMs < PROGRESS_MS && read < total) return;
    toldMs = nowMs;
    console.log(JSON.stringify({ read, total }));
  };
}

async function main(): Promise<number> {
  let asked: Asked;
  try {
    asked = parse();
  } catch (error) {
    console.error(`${(error as Error).message}\n${USAGE}`);
    return 2;
  }
  try {
    const report = await importModel(asked.folder, asked.out, { ...asked.options, onRead: progress() });
    console.log(JSON.stringify({ report }));
    return 0;
  } catch (error) {
    console.error((error as Error).message);
    return 1;
  }
}

process.exitCode = await main();
