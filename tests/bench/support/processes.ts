// Starts service processes for a bench, as the supervisor does: sockets in a private folder, a pipe that ends them with us.
import { spawn, type ChildProcess } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { NODE_ARGUMENTS } from "@moevie/contracts";
import type { Duplex } from "node:stream";
import { fileURLToPath } from "node:url";

export const ROOT = fileURLToPath(new URL("../../..", import.meta.url));
const READY_MS_MAX = 60_000;

export interface BenchProcess {
  readonly name: string;
  readonly pid: number;
  /** From spawn to the ready line, seconds. */
  readonly readySeconds: number;
}

/** A folder of sockets and the processes that listen there. */
export class ProcessGroup {
  readonly folder = mkdtempSync(join(tmpdir(), "moevie-bench-"));
  readonly #children: ChildProcess[] = [];

  address(name: string): string {
    return `unix:${join(this.folder, `${name}.sock`)}`;
  }

  /** Starts packages/KIND and resolves when it is ready; throws with its last words otherwise. */
  start(kind: string, name: string, environment: Readonly<Record<string, string>>): Promise<BenchProcess> {
    const startMs = performance.now();
    const child = spawn(process.execPath, [...NODE_ARGUMENTS, join(ROOT, "packages", kind, "src/main.ts")], {
      env: {
        ...process.env,
        MOEVIE_SERVICE: name,
        MOEVIE_SUPERVISED: "1",
        MOEVIE_RUN_DIR: this.folder,
        MOEVIE_GRPC_LISTEN: this.address(name),
        MOEVIE_HTTP_LISTEN: `unix:${join(this.folder, `${name}.http.sock`)}`,
        MOEVIE_LOG_LEVEL: "error",
        ...environment,
      },
      stdio: ["ignore", "ignore", "inherit", "pipe"],
    });
    this.#children.push(child);
    const pipe = child.stdio[3] as Duplex;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(
        () => reject(new Error(`${name} was not ready in ${READY_MS_MAX / 1000} s`)),
        READY_MS_MAX,
      );
      child.once("exit", (code) => reject(new Error(`${name} ended with ${code}`)));
      pipe.on("data", (data: Buffer) => {
        clearTimeout(timer);
        if (data.toString().includes('"ready":true'))
          resolve({ name, pid: child.pid ?? 0, readySeconds: (performance.now() - startMs) / 1000 });
        else reject(new Error(`${name}: ${data.toString()}`));
      });
    });
  }

  /** Ends every process and removes the folder. */
  async close(): Promise<void> {
    await Promise.all(
      this.#children.map(
        (child) =>
          new Promise<void>((resolve) => {
            if (child.exitCode !== null || child.signalCode !== null) return resolve();
            child.once("exit", () => resolve());
            child.kill("SIGKILL");
          }),
      ),
    );
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** Resident memory of a process, MiB (proportional share where the kernel tells it). */
export function residentMiB(pid: number): number {
  const text = readFileSync(`/proc/${pid}/smaps_rollup`, "utf8");
  return Number(/^Pss:\s+(\d+) kB/m.exec(text)?.[1] ?? Number.NaN) / 1024;
}

/** CPU seconds a process has used. */
export function cpuSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8")
    .replace(/^.*\) /, "")
    .split(" ");
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1
    ? (sorted[middle] ?? Number.NaN)
    : ((sorted[middle - 1] ?? Number.NaN) + (sorted[middle] ?? Number.NaN)) / 2;
}

/** One line a target: the figure, what was wanted, and whether it was met. */
export function showTarget(
  name: string,
  figure: number,
  unit: string,
  wanted: "at most" | "at least",
  target: number,
): void {
  const met = wanted === "at most" ? figure <= target : figure >= target;
  console.log(
    `  ${met ? "met   " : "missed"} ${name}: ${figure.toFixed(2)} ${unit}, target ${wanted} ${target} ${unit}`,
  );
}
