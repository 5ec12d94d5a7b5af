// Runs one of the project's own programs to its end with this terminal: benches and imports. Not for services: see supervisor.
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { CommandError, InterruptedError } from "./failure.ts";
import type { Interruption } from "./interruption.ts";
import { STOP_GRACE_MS } from "./supervisor/service-process.ts";
import type { CommandContext } from "./command.ts";
import { nodeArguments } from "./node-arguments.ts";

export interface ChildEnd {
  readonly exitCode: number;
  /** What it wrote on stdout when captured, else "". */
  readonly stdout: string;
  readonly stderr: string;
}

/** Longest output kept of a captured child. */
const CAPTURED_CHARACTERS_MAX = 1_000_000;

/** Why a captured child ended, from what it wrote on stderr: the error's own line, else the last one. */
export function lastWords(stderr: string): string {
  const [error] = /^(?:Uncaught )?\w*Error(?: \[\w+\])?: .*$/m.exec(stderr) ?? [];
  return error ?? (stderr.trim().split("\n").at(-1) || "no reason given");
}

/** Runs Node with `args`. Captured: its output is returned; else it goes where ours goes. Throws when interrupted. */
export async function runNode(
  context: Pick<CommandContext, "config" | "clock">,
  args: readonly string[],
  options: {
    readonly capture: boolean;
    readonly cwd?: string;
    readonly interruption: Interruption;
    /** Told of each line of a captured stdout as it comes. */
    readonly onLine?: (line: string) => void;
  },
): Promise<ChildEnd> {
  const output = options.capture ? "pipe" : "inherit";
  const child = spawn(process.execPath, [...nodeArguments(context.config.root), ...args], {
    // No folder of anybody's is this child's to remove.
    env: { ...context.config.environment, MOEVIE_RUN_DIR: "" },
    stdio: ["ignore", output, output, "pipe"],
    detached: true,
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
  });
  const texts = { stdout: "", stderr: "" };
  for (const name of ["stdout", "stderr"] as const) {
    child[name]?.setEncoding("utf8");
    child[name]?.on("data", (text: string) => (texts[name] = (texts[name] + text).slice(0, CAPTURED_CHARACTERS_MAX)));
  }
  const { onLine } = options;
  if (onLine !== undefined && child.stdout !== null) createInterface({ input: child.stdout }).on("line", onLine);
  const ended = new AbortController();
  const kill = (signal: NodeJS.Signals): void => {
    if (!ended.signal.aborted) child.kill(signal);
  };
  const stop = (): void => {
    kill("SIGTERM");
    void context.clock.sleep(STOP_GRACE_MS, ended.signal).then(() => kill("SIGKILL"));
  };
  options.interruption.signal.addEventListener("abort", stop, { once: true });
  options.interruption.hurry.addEventListener("abort", () => kill("SIGKILL"), { once: true });
  const exitCode = await new Promise<number>((resolve, reject) => {
    child.on("error", (error) =>
      reject(new CommandError(`${process.execPath} could not be started: ${error.message}`)),
    );
    child.on("close", (code) => resolve(code ?? 1));
  });
  ended.abort();
  if (options.interruption.signal.aborted) throw new InterruptedError();
  return { exitCode, ...texts };
}
