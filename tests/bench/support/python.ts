// A Python of its own for benches that compare with Python programs: a virtual environment in the project's cache, made when missing.
import { spawn, type ChildProcess } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface, type Interface } from "node:readline";
import { CACHE } from "../../support/cache.ts";

/** Runs a program to its end and hands on its lines; throws when it fails. */
export async function runProgram(
  program: string,
  args: readonly string[],
  line: (text: string) => void,
): Promise<void> {
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

/** The Python of the environment `name`, which holds what `requirements` pins. */
export async function pythonWith(name: string, requirements: string): Promise<string> {
  const folder = join(CACHE, name);
  const stamp = join(folder, "requirements.sha256");
  const wanted = createHash("sha256").update(readFileSync(requirements)).digest("hex");
  const python = join(folder, "bin/python");
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === wanted) return python;
  console.log("installing PyTorch (once, several GB)");
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(CACHE, { recursive: true });
  await runProgram("python3", ["-m", "venv", folder], console.log);
  await runProgram(python, ["-m", "pip", "install", "--quiet", "--requirement", requirements], console.log);
  writeFileSync(stamp, wanted);
  return python;
}

/** A Python program that answers JSON lines with JSON lines, one at a time. */
export class PythonPeer {
  readonly #child: ChildProcess;
  readonly #answers: AsyncIterator<string>;
  readonly #lines: Interface;

  constructor(python: string, program: string) {
    this.#child = spawn(python, [program], { stdio: ["pipe", "pipe", "inherit"] });
    this.#lines = createInterface({ input: this.#child.stdout! });
    this.#answers = this.#lines[Symbol.asyncIterator]();
  }

  /** Calls the program's `call` with named arguments. Throws when the program has ended. */
  async ask<Answer>(call: string, given: object = {}): Promise<Answer> {
    this.#child.stdin!.write(`${JSON.stringify({ call, ...given })}\n`);
    const answer = await this.#answers.next();
    if (answer.done === true) throw new Error(`the program ended at ${call}`);
    return JSON.parse(answer.value) as Answer;
  }

  close(): void {
    this.#child.stdin!.end();
    this.#lines.close();
  }
}
