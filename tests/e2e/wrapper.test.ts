// The wrapper on a fresh machine: a copy of the tracked files in a folder with a space in its name, an empty home and an empty
// cache. The first command sets everything up, the second one nothing; without a network the first says so in one line.
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import { until } from "./cli-session.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const SET_UP_MS_MAX = 170_000;
const folder = mkdtempSync(join(tmpdir(), "moevie-wrapper-"));
const copy = join(folder, "a copy of moevie");
const home = join(folder, "home");
/** Nothing answers there. */
const NO_REGISTRY = { npm_config_registry: "http://127.0.0.1:9", npm_config_fetch_retries: "0" };

beforeAll(() => {
  const { stdout } = spawnSync("git", ["ls-files", "-z", "--cached", "--others", "--exclude-standard"], {
    cwd: ROOT,
    encoding: "utf8",
    maxBuffer: 16_777_216,
  });
  for (const path of stdout.split("\0").filter((name) => name !== "")) {
    mkdirSync(join(copy, dirname(path)), { recursive: true });
    cpSync(join(ROOT, path), join(copy, path));
  }
  mkdirSync(home);
});
afterAll(() => {
  chmodSync(home, 0o755);
  rmSync(folder, { recursive: true, force: true });
});

function run(
  command: string,
  args: readonly string[],
  environment: Readonly<Record<string, string>> = {},
): { code: number | null; stdout: string; stderr: string } {
  const { MOEVIE_CACHE: _cache, ...inherited } = process.env;
  const env = { ...inherited, HOME: home, ...environment };
  const result = spawnSync(command, args, { cwd: folder, encoding: "utf8", timeout: SET_UP_MS_MAX, env });
  return { code: result.status, stdout: result.stdout, stderr: result.stderr };
}

test("without a network the first command says what could not be fetched, in one line, and leaves nothing half made", () => {
  const result = run(join(copy, "moevie"), ["version"], NO_REGISTRY);
  expect(result.code).toBe(1);
  expect(result.stderr).toMatch(/^moevie: could not fetch node-\S+ from the npm registry: .+$/m);
  expect(result.stderr).not.toMatch(/^\s+at /m);
  expect(readdirSync(join(copy, ".cache")).filter((name) => name !== "tools")).toEqual([]);
});

/** A folder for the head of PATH, with a program in it. */
function programs(name: string, script: string): string {
  const path = join(folder, `bin-${readdirSync(folder).length}`);
  mkdirSync(path);
  writeFileSync(join(path, name), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  return path;
}

function running(pid: number): boolean {
  return existsSync(`/proc/${pid}`) && !/^State:\tZ/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
}

test.each(["SIGKILL", "SIGTERM"] as const)(
  "a set-up ended by %s ends what it ran, and does not hold up the next",
  async (signal) => {
    const cache = join(folder, `ended by ${signal}`);
    const started = join(folder, `npm of ${signal}`);
    // A stamp of an earlier set-up: it must not vouch for the one that is ended.
    mkdirSync(cache);
    writeFileSync(join(cache, "ready"), "");
    const PATH = `${programs("npm", `echo $$ > "${started}"; exec sleep 600`)}:${process.env["PATH"]}`;
    const env = { ...process.env, HOME: home, MOEVIE_CACHE: cache, PATH };
    const child = spawn(join(copy, "moevie"), ["version"], { env, stdio: "ignore" });
    const ended = once(child, "exit");
    await until(
      () => existsSync(started) && readFileSync(started, "utf8") !== "",
      30_000,
      () => "npm was not run",
    );
    const npm = Number(readFileSync(started, "utf8"));
    const owner = Number(readFileSync(join(cache, "bootstrap.lock"), "utf8").split(" ")[0]);
    expect([running(npm), running(owner)]).toEqual([true, true]);
    if (signal === "SIGKILL") process.kill(owner, signal);
    else child.kill(signal);
    await ended;
    await until(
      () => !running(npm),
      5000,
      () => "npm still runs",
    );
    const startMs = performance.now();
    const next = run(join(copy, "moevie"), ["version"], { ...NO_REGISTRY, MOEVIE_CACHE: cache });
    expect(next.stderr).toContain("could not fetch node-");
    expect(performance.now() - startMs).toBeLessThan(60_000);
    expect(readdirSync(cache).filter((name) => name !== "tools")).toEqual([]);
  },
);

test.each([
  [
    "a cache that cannot be made",
    { MOEVIE_CACHE: "/proc/cache" },
    /^moevie: the cache folder \(MOEVIE_CACHE\): .*\/proc\/cache/,
  ],
  ["no tar", { PATH: "" }, /^moevie: setting up needs tar, which is not on PATH; install it/],
])("with %s the set-up says in one line what to do", (_case, environment, words) => {
  const bin = programs("npm", "exit 1");
  for (const name of ["sh", "dirname", "readlink", "mkdir"]) symlinkSync(`/bin/${name}`, join(bin, name));
  symlinkSync(process.execPath, join(bin, "node"));
  const PATH = "PATH" in environment ? bin : `${bin}:${process.env["PATH"]}`;
  const result = run(join(copy, "moevie"), ["version"], { ...environment, PATH });
  expect(result).toEqual({ code: 1, stdout: "", stderr: expect.stringMatching(words) });
  expect(result.stderr.trim().split("\n")).toHaveLength(1);
});

test("on a full disk the set-up says so in one line", () => {
  const npm = `head -c 500000 /dev/zero > "$PWD/x.tgz" || { echo "npm error code ENOSPC" >&2
    echo "npm error nospc ENOSPC: no space left on device, write" >&2
    echo "npm error A complete log of this run can be found in: /x/y-debug-0.log" >&2; exit 1; }`;
  const cache = join(folder, "small disk");
  mkdirSync(cache);
  const script = `mount -t tmpfs -o size=64k none "$MOEVIE_CACHE" && exec "$@"`;
  const result = run("unshare", ["-rm", "sh", "-c", script, "sh", join(copy, "moevie"), "version"], {
    MOEVIE_CACHE: cache,
    PATH: `${programs("npm", npm)}:${process.env["PATH"]}`,
  });
  expect(result.code).toBe(1);
  expect(result.stderr.split("\n")[1]).toMatch(
    /^moevie: could not fetch node-\S+ from the npm registry: .*no space left on device.*; make room on the disk and run it again$/i,
  );
  expect(result.stderr.trim().split("\n")).toHaveLength(2);
});

test("a relative cache is below the folder one is in", () => {
  const result = run(join(copy, "moevie"), ["version"], { ...NO_REGISTRY, MOEVIE_CACHE: "nearby" });
  expect(result.stderr).toContain("could not fetch node-");
  expect(existsSync(join(folder, "nearby"))).toBe(true);
});

test("the first command sets up, the second one fetches and installs nothing, through a link and with a home that cannot be written", () => {
  const first = run(join(copy, "moevie"), ["version"]);
  expect(first.stderr).toContain("moevie: fetching node-");
  expect(first.code, first.stderr).toBe(0);
  expect(readdirSync(home)).toEqual([]);
  const installed = statSync(join(copy, "node_modules", ".modules.yaml")).mtimeMs;
  const link = join(folder, "link");
  symlinkSync(join("a copy of moevie", "moevie"), link);
  chmodSync(home, 0o555);
  const second = run(link, ["version"], NO_REGISTRY);
  expect(second).toEqual({ code: 0, stdout: first.stdout, stderr: "" });
  expect(statSync(join(copy, "node_modules", ".modules.yaml")).mtimeMs).toBe(installed);
  expect(run(link, ["generate", "x", "--steps", "0"], NO_REGISTRY)).toMatchObject({ code: 2, stdout: "" });
});
