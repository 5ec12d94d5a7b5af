// Runs the real command line in a folder and a temporary folder of its own, and says what it left behind. For the tests of this folder alone.
import { spawn, type ChildProcess } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { importStarter } from "@moevie/importer";
import { writeTinyModel } from "../parity/tiny.ts";

const MAIN = fileURLToPath(new URL("../../packages/cli/src/main.ts", import.meta.url));
const CLI = [process.execPath, "--disable-warning=ExperimentalWarning", MAIN];
const POLL_MS = 25;

export interface Finished {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** A command that runs; its output is kept and can be waited for. */
export class RunningCommand {
  readonly child: ChildProcess;
  readonly finished: Promise<Finished>;
  stdout = "";
  stderr = "";
  #ended = false;

  constructor(child: ChildProcess) {
    this.child = child;
    child.stdout?.on("data", (chunk: Buffer) => (this.stdout += chunk.toString()));
    child.stderr?.on("data", (chunk: Buffer) => (this.stderr += chunk.toString()));
    this.finished = new Promise((resolve) => {
      child.on("close", (code) => {
        this.#ended = true;
        resolve({ code, stdout: this.stdout, stderr: this.stderr });
      });
    });
  }

  /** Waits until its output holds `text`. Fails when it ends without. */
  async says(text: string | RegExp, timeoutMs = 60_000): Promise<void> {
    const holds = (all: string): boolean => (typeof text === "string" ? all.includes(text) : text.test(all));
    await until(
      () => holds(this.stdout + this.stderr) || this.#ended,
      timeoutMs,
      () => `no ${text} in:\n${this.stdout}${this.stderr}`,
    );
    if (!holds(this.stdout + this.stderr)) throw new Error(`ended without ${text}:\n${this.stdout}${this.stderr}`);
  }
}

/** Polls until `condition` holds: for things of other processes that send no event. */
export async function until(condition: () => boolean, timeoutMs: number, explain: () => string): Promise<void> {
  const endMs = performance.now() + timeoutMs;
  while (!condition()) {
    if (performance.now() > endMs) throw new Error(`waited ${timeoutMs} ms: ${explain()}`);
    await pause(POLL_MS);
  }
}

/** A place to run commands in. */
export class CliSession {
  readonly folder: string;
  readonly temporary: string;
  /** Where routers and shards share memory. */
  readonly #segments: string;
  readonly #environment: Readonly<Record<string, string>>;

  constructor(environment: Readonly<Record<string, string>> = {}) {
    this.#environment = environment;
    // Short, whatever TMPDIR says: sockets live below it.
    this.folder = mkdtempSync("/tmp/e2e-");
    this.temporary = join(this.folder, "tmp");
    this.#segments = mkdtempSync("/dev/shm/e2e-");
    mkdirSync(this.temporary);
    mkdirSync(join(this.folder, "work"));
  }

  /** Folder the commands run in. */
  get work(): string {
    return join(this.folder, "work");
  }

  start(...args: string[]): RunningCommand {
    return this.#spawn([...CLI, ...args]);
  }

  /** The same with a temporary folder that holds `kib` and no more: a disk that is almost full. Needs user namespaces. */
  startOnSmallDisk(kib: number, ...args: string[]): RunningCommand {
    const script = `mount -t tmpfs -o size=${kib}k none "$TMPDIR" && exec "$@"`;
    return this.#spawn(["unshare", "-rm", "sh", "-c", script, "sh", ...CLI, ...args]);
  }

  #spawn([command = "", ...args]: string[]): RunningCommand {
    const env = {
      ...process.env,
      TMPDIR: this.temporary,
      HOME: this.folder,
      XDG_DATA_HOME: join(this.folder, "data"),
      MOEVIE_SEGMENT_DIR: this.#segments,
      ...this.#environment,
    };
    return new RunningCommand(spawn(command, args, { cwd: this.work, env, stdio: ["ignore", "pipe", "pipe"] }));
  }

  run(...args: string[]): Promise<Finished> {
    return this.start(...args).finished;
  }

  /** Processes of this session: [pid, name of the service or ""]. */
  processes(): [number, string][] {
    const found: [number, string][] = [];
    for (const entry of readdirSync("/proc")) {
      if (!/^\d+$/.test(entry)) continue;
      try {
        const variables = readFileSync(`/proc/${entry}/environ`, "utf8").split("\0");
        if (!variables.includes(`TMPDIR=${this.temporary}`)) continue;
        found.push([
          Number(entry),
          variables.find((text) => text.startsWith("MOEVIE_SERVICE="))?.slice("MOEVIE_SERVICE=".length) ?? "",
        ]);
      } catch {
        continue;
      }
    }
    return found;
  }

  /** Process id of a service. */
  pidOf(service: string): number {
    const pid = this.processes().find(([, name]) => name === service)?.[0];
    if (pid === undefined) throw new Error(`no process ${service}`);
    return pid;
  }

  /** Everything a command must not leave: processes, sockets, temporary files, shared memory. */
  leftovers(): string[] {
    const processes = this.processes().map(([pid, name]) => `process ${pid} ${name}`);
    const sockets = readFileSync("/proc/net/unix", "utf8")
      .split("\n")
      .filter((line) => line.includes(this.temporary))
      .map((line) => `socket ${line.split(" ").at(-1)}`);
    const files = readdirSync(this.temporary).map((name) => `file ${name}`);
    return [...processes, ...sockets, ...files, ...readdirSync(this.#segments).map((name) => `segment ${name}`)];
  }

  /** Waits until nothing is left: after a kill -9 the children need a moment to notice. */
  async untilNothingLeft(timeoutMs = 10_000): Promise<void> {
    await until(
      () => this.leftovers().length === 0,
      timeoutMs,
      () => this.leftovers().join(", "),
    );
  }

  /** A bundle of random weights, small enough for quick clips. Its folder. */
  async tinyBundle(): Promise<string> {
    const bundle = join(this.folder, "bundle");
    if (!existsSync(bundle)) {
      writeTinyModel(join(this.folder, "model"));
      await importStarter(join(this.folder, "model"), bundle);
    }
    return bundle;
  }

  /** Kills what a failed test left and removes the folder. */
  close(): void {
    for (const [pid] of this.processes()) {
      try {
        process.kill(pid, "SIGKILL");
      } catch {
        continue;
      }
    }
    for (const folder of [this.folder, this.#segments])
      rmSync(folder, { recursive: true, force: true, maxRetries: 5, retryDelay: 50 });
  }
}
