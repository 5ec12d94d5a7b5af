// Minutes of training from nothing: every stage's loss falls, the result goes through the importer, and the bundle makes a clip.
// Needs python3 with venv; PyTorch is installed into the project's cache. MOEVIE_TRAIN_MINUTES says how long (8 when not set).
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { importStarter } from "@moevie/importer";
import { ROOT } from "./support/processes.ts";
import { pythonWith, runProgram } from "./support/python.ts";

const TRAINING = join(ROOT, "packages/starter-model/training");
const MINUTES = Number(process.env["MOEVIE_TRAIN_MINUTES"] ?? 8);
const PROMPT = "a golden dog runs along the beach at sunset";

/** Loss of each stage at its lines, in order: "text minutes 0.1 captions 6400 loss 6.1", "dit T=1 minutes ... loss .9 ...". */
function lossOf(text: string): readonly [stage: string, loss: number] | undefined {
  const found = /^(\w+(?: T=\d+)?) minutes .* loss ([\d.]+)/.exec(text);
  return found?.[1] === undefined ? undefined : [found[1], Number(found[2])];
}

const scratch = mkdtempSync(join(tmpdir(), "moevie-bench-train-"));
try {
  const losses = new Map<string, number[]>();
  const python = await pythonWith("training", join(TRAINING, "requirements.txt"));
  const command = [
    "train.py",
    "--run",
    join(scratch, "run"),
    "--out",
    join(scratch, "model"),
    "--minutes",
    `${MINUTES}`,
  ];
  await runProgram(python, [join(TRAINING, command[0]!), ...command.slice(1)], (text) => {
    console.log(text);
    const [stage, loss] = lossOf(text) ?? [];
    if (stage !== undefined && loss !== undefined) losses.set(stage, [...(losses.get(stage) ?? []), loss]);
  });
  await importStarter(join(scratch, "model/weights"), join(scratch, "bundle"));
  const clip = join(scratch, "clip.mp4");
  await runProgram(
    join(ROOT, "moevie"),
    ["generate", PROMPT, "--model", join(scratch, "bundle"), "-o", clip, "--json"],
    console.log,
  );
  console.log(`\n${MINUTES} minutes of training in all, from nothing, on this machine`);
  let told = 0;
  let falls = true;
  for (const [stage, values] of losses) {
    const [first = Number.NaN, last = Number.NaN] = [values[0], values.at(-1)];
    // A stage too short for a second line says nothing.
    if (values.length < 2) continue;
    told++;
    falls &&= last < first;
    console.log(`  ${stage.padEnd(10)} loss ${first.toFixed(3)} at its first line, ${last.toFixed(3)} at its last`);
  }
  console.log(
    `  every loss falls (${told} stages): ${falls && told > 0 ? "met" : "missed"}; a clip of the bundle: ${existsSync(clip) ? "met" : "missed"}`,
  );
  console.log(JSON.stringify({ minutes: MINUTES, losses: Object.fromEntries(losses) }));
  process.exitCode = falls && told > 0 ? 0 : 1;
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
