// Minutes of training from nothing: every stage's loss falls, the result goes through the importer, and the bundle makes a clip.
// Needs python3 with venv; PyTorch is installed into the project's cache. MOEVIE_TRAIN_MINUTES says how long (8 when not set).
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { importStarter } from "@moevie/importer";
import { CACHE } from "../support/cache.ts";
import { ROOT } from "./support/processes.ts";

const TRAINING = join(ROOT, "packages/starter-model/training");
const MINUTES = Number(process.env["MOEVIE_TRAIN_MINUTES"] ?? 8);
const PROMPT = "a golden dog runs along the beach at sunset";

/** Runs a program to its end and hands on its lines; throws when it fails. */
async function run(program: string, args: readonly string[], line: (text: string) => void): Promise<void> {
  const child = spawn(program, args, {
    stdio: ["ignore", "pipe", "inherit"],
    env: { ...process.env, OMP_NUM_THREADS: "1" },
  });
  const ended = new Promise<number>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code) => resolve(code ?? 1));
  });
  for await (const text of createInterface({ input: child.stdout })) line(text);
  const code = await ended;
  if (code !== 0) throw new Error(`${program} ${args.join(" ")} ended with ${code}`);
}

/** The Python of a virtual environment that holds the pinned requirements; made when missing or out of date. */
async function trainer(): Promise<string> {
  const folder = join(CACHE, "training");
  const pins = join(TRAINING, "requirements.txt");
  const stamp = join(folder, "requirements.sha256");
  const wanted = createHash("sha256").update(readFileSync(pins)).digest("hex");
  const python = join(folder, "bin/python");
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === wanted) return python;
  console.log("installing PyTorch (once, several GB)");
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(CACHE, { recursive: true });
  await run("python3", ["-m", "venv", folder], console.log);
  await run(python, ["-m", "pip", "install", "--quiet", "--requirement", pins], console.log);
  writeFileSync(stamp, wanted);
  return python;
}

/** Loss of each stage at its lines, in order: "text minutes 0.1 captions 6400 loss 6.1", "dit T=1 minutes ... loss .9 ...". */
function lossOf(text: string): readonly [stage: string, loss: number] | undefined {
  const found = /^(\w+(?: T=\d+)?) minutes .* loss ([\d.]+)/.exec(text);
  return found?.[1] === undefined ? undefined : [found[1], Number(found[2])];
}

const scratch = mkdtempSync(join(tmpdir(), "moevie-bench-train-"));
try {
  const losses = new Map<string, number[]>();
  const python = await trainer();
  const command = [
    "train.py",
    "--run",
    join(scratch, "run"),
    "--out",
    join(scratch, "model"),
    "--minutes",
    `${MINUTES}`,
  ];
  await run(python, [join(TRAINING, command[0]!), ...command.slice(1)], (text) => {
    console.log(text);
    const [stage, loss] = lossOf(text) ?? [];
    if (stage !== undefined && loss !== undefined) losses.set(stage, [...(losses.get(stage) ?? []), loss]);
  });
  await importStarter(join(scratch, "model/weights"), join(scratch, "bundle"));
  const clip = join(scratch, "clip.mp4");
  await run(
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
