// One child process of the cluster: start, ready line, end, stop. Knows nothing of the other children and never restarts itself.
import { spawn, type ChildProcess } from "node:child_process";
import { rmSync } from "node:fs";
import type { Duplex } from "node:stream";
import type { Clock } from "../clock.ts";
import { LogTail } from "./log-tail.ts";
import type { ServicePlan } from "./plan-cluster.ts";

/** starting → ready → ended, starting → ended; `stop` may be asked in any state and ends in ended. */
export type ProcessState =
  | { readonly kind: "starting" }
  | { readonly kind: "ready"; readonly grpc: string; readonly http: string }
  | { readonly kind: "ended"; readonly cause: string };

export interface ServiceProcessOptions {
  /** The Node binary. */
  readonly node: string;
  readonly nodeArguments: readonly string[];
  readonly clock: Clock;
  /** Called with each line the child writes, when logs are to be seen. */
  readonly forwardLog?: ((line: string) => void) | undefined;
}

/** How long a child may take from SIGTERM to its end before SIGKILL. */
export const STOP_GRACE_MS = 5000;
/** Longest line a child may write on its pipe. */
const PIPE_LINE_CHARACTERS_MAX = 16_384;

export class ServiceProcess {
  readonly name: string;
  readonly #child: ChildProcess;
  readonly #clock: Clock;
  readonly #tail: LogTail;
  readonly #ready = Promise.withResolvers<void>();
  readonly #ended = Promise.withResolvers<string>();
  #state: ProcessState = { kind: "starting" };
  #failedText: string | undefined;

  constructor(plan: ServicePlan, options: ServiceProcessOptions) {
    this.name = plan.name;
    this.#clock = options.clock;
    this.#tail = new LogTail(options.forwardLog);
    for (const socket of plan.sockets) rmSync(socket, { force: true });
    // Its own session: Ctrl-C and the terminal's hang-up reach the supervisor alone, which then decides.
    this.#child = spawn(options.node, [...options.nodeArguments, plan.entry], {
      env: { ...plan.environment },
      stdio: ["ignore", "pipe", "pipe", "pipe"],
      detached: true,
    });
    this.#listen();
  }

  get state(): ProcessState {
    return this.#state;
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  /** Resolves when the child said it is ready; never rejects: race it with `ended`. */
  get ready(): Promise<void> {
    return this.#ready.promise;
  }

  /** Resolves with the cause when the process is gone. */
  get ended(): Promise<string> {
    return this.#ended.promise;
  }

  /** SIGTERM, then SIGKILL to whatever is left after the grace. Resolves when the process is gone. */
  async stop(graceMs: number = STOP_GRACE_MS): Promise<void> {
    if (this.#state.kind === "ended") return;
    const gone = new AbortController();
    if (graceMs > 0) {
      this.#signal("SIGTERM");
      await Promise.race([this.ended.then(() => gone.abort()), this.#clock.sleep(graceMs, gone.signal)]);
    }
    this.kill();
    await this.ended;
  }

  /** SIGKILL to the process and all it started. Synchronous: also for the last moment of the supervisor. */
  kill(): void {
    this.#signal("SIGKILL");
  }

  #signal(signal: "SIGTERM" | "SIGKILL"): void {
    const { pid } = this.#child;
    if (pid === undefined || this.#state.kind === "ended") return;
    try {
      process.kill(signal === "SIGKILL" ? -pid : pid, signal);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
    }
  }

  #listen(): void {
    const [, stdout, stderr, pipe] = this.#child.stdio;
    for (const stream of [stdout, stderr] as (Duplex | null)[]) {
      stream?.setEncoding("utf8");
      stream?.on("data", (text: string) => this.#tail.push(text));
      stream?.on("error", () => undefined);
    }
    this.#readPipe(pipe as Duplex | null | undefined);
    this.#child.on("error", (error) => this.#end(`it could not be started: ${error.message}`));
    this.#child.on("exit", () => this.kill());
    this.#child.on("close", (code, signal) => {
      this.#tail.end();
      this.#end(this.#explain(code, signal));
    });
  }

  #explain(code: number | null, signal: NodeJS.Signals | null): string {
    if (this.#failedText !== undefined) return this.#failedText;
    const how = signal === null ? `it ended with exit code ${code ?? "unknown"}` : `it was ended by ${signal}`;
    const last = this.#tail.lastMessage();
    return last === undefined ? how : `${how}: ${last}`;
  }

  #end(cause: string): void {
    if (this.#state.kind === "ended") return;
    this.#state = { kind: "ended", cause };
    this.#ended.resolve(cause);
  }

  #readPipe(pipe: Duplex | null | undefined): void {
    let rest = "";
    pipe?.setEncoding("utf8");
    pipe?.on("error", () => undefined);
    pipe?.on("data", (text: string) => {
      const lines = (rest + text).split("\n");
      rest = (lines.pop() ?? "").slice(0, PIPE_LINE_CHARACTERS_MAX);
      for (const line of lines) this.#hear(line);
    });
  }

  #hear(line: string): void {
    let message: { ready?: unknown; grpc?: unknown; http?: unknown; failed?: unknown };
    try {
      message = JSON.parse(line) as typeof message;
    } catch {
      return;
    }
    if (typeof message.failed === "string") this.#failedText = message.failed;
    if (message.ready !== true || this.#state.kind !== "starting") return;
    this.#state = { kind: "ready", grpc: textOf(message.grpc), http: textOf(message.http) };
    this.#ready.resolve();
  }
}

function textOf(value: unknown): string {
  return typeof value === "string" ? value : "";
}
