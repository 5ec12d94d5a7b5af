// Runs one import as a process of its own: `main.ts IMPORT_DIR --out DIR`. Exit 0 done, 1 refused, 2 wrong use. No stack traces.
import { parseArgs } from "node:util";
import { importStarter } from "./import-starter.ts";

const USAGE = "usage: main.ts IMPORT_DIR --out DIR";

async function main(): Promise<number> {
  let folder: string | undefined;
  let out: string | undefined;
  try {
    const { values, positionals } = parseArgs({ allowPositionals: true, options: { out: { type: "string" } } });
    [folder] = positionals;
    out = values.out;
  } catch (error) {
    console.error(`${(error as Error).message}\n${USAGE}`);
    return 2;
  }
  if (folder === undefined || out === undefined) {
    console.error(USAGE);
    return 2;
  }
  try {
    await importStarter(folder, out);
    return 0;
  } catch (error) {
    console.error((error as Error).message);
    return 1;
  }
}

process.exitCode = await main();
