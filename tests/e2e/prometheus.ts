// A real Prometheus from the Debian package, unpacked into the cache without root, for tests that ask it.
import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { debianFolder } from "../support/debian-package.ts";
import { freePort } from "../support/free-port.ts";

const READY_MS_MAX = 30_000;
const POLL_MS = 50;

export interface Sample {
  readonly metric: Readonly<Record<string, string>>;
  readonly value: readonly [number, string];
}

/** Folder with prometheus and promtool, fetched when missing. Throws with apt's last line when it cannot be had. */
function prometheusFolder(): string {
  return debianFolder("prometheus", "usr/bin");
}

/** `promtool check config`; the empty string when it is content. */
export function promtoolCheck(configFile: string): string {
  const check = spawnSync(join(prometheusFolder(), "promtool"), ["check", "config", configFile], { encoding: "utf8" });
  return check.status === 0 ? "" : check.stdout + check.stderr;
}

/** `promtool test rules`; the empty string when every alert is raised as the file says. */
export function promtoolTest(testFile: string): string {
  const test = spawnSync(join(prometheusFolder(), "promtool"), ["test", "rules", testFile], { encoding: "utf8" });
  return test.status === 0 ? "" : test.stdout + test.stderr;
}

/** A Prometheus that scrapes until it is closed. */
export class Prometheus {
  readonly #child: ChildProcess;
  readonly #url: string;

  private constructor(child: ChildProcess, url: string) {
    this.#child = child;
    this.#url = url;
  }

  /** Starts with the text of a configuration; data and the file lie under `folder`. */
  static async start(folder: string, config: string): Promise<Prometheus> {
    const file = join(folder, "prometheus.yml");
    writeFileSync(file, config);
    const port = await freePort();
    const args = [
      `--config.file=${file}`,
      `--storage.tsdb.path=${join(folder, "data")}`,
      `--web.listen-address=127.0.0.1:${port}`,
      "--log.level=error",
    ];
    const child = spawn(join(prometheusFolder(), "prometheus"), args, { stdio: "ignore" });
    const prometheus = new Prometheus(child, `http://127.0.0.1:${port}`);
    const endMs = performance.now() + READY_MS_MAX;
    while (!(await prometheus.#ready())) {
      if (performance.now() > endMs || child.exitCode !== null) {
        await prometheus.close();
        throw new Error("prometheus did not become ready");
      }
      await pause(POLL_MS);
    }
    return prometheus;
  }

  async #ready(): Promise<boolean> {
    try {
      return (await fetch(`${this.#url}/-/ready`)).ok;
    } catch {
      return false;
    }
  }

  /** An instant query now. Throws Prometheus' own message for a query it cannot read. */
  async query(expression: string): Promise<Sample[]> {
    const response = await fetch(`${this.#url}/api/v1/query?${new URLSearchParams({ query: expression }).toString()}`);
    const answer = (await response.json()) as { status: string; error?: string; data?: { result: Sample[] } };
    if (answer.status !== "success") throw new Error(`${expression}: ${answer.error}`);
    return answer.data?.result ?? [];
  }

  /** Waits until the query's one value is at least `value`. */
  async reaches(expression: string, value: number, timeoutMs: number): Promise<void> {
    const endMs = performance.now() + timeoutMs;
    let seen: string | undefined;
    while (Number(seen ?? 0) < value) {
      if (performance.now() > endMs)
        throw new Error(`${expression} is ${seen ?? "nothing"}, not ${value}, after ${timeoutMs} ms`);
      await pause(POLL_MS);
      seen = (await this.query(expression))[0]?.value[1];
    }
  }

  async close(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const closed = new Promise((resolve) => this.#child.once("close", resolve));
    this.#child.kill("SIGKILL");
    await closed;
  }
}
