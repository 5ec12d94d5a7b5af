// The wrapper on a fresh machine: a copy of the tracked files in a folder with a space in its name, an empty home and an empty
// cache. The first command sets everything up, the second one nothing; without a network the first says so in one line.
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { chmodSync, cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, symlinkSync } from "node:fs";
import { createServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";

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

/** This process's environment without its cache. */
function withoutCache(): NodeJS.ProcessEnv {
  const { MOEVIE_CACHE: _cache, ...others } = process.env;
  return others;
}

function run(
  command: string,
  args: readonly string[],
  environment: Readonly<Record<string, string>> = {},
): { code: number | null; stdout: string; stderr: string } {
  const result = spawnSync(command, args, {
    cwd: folder,
    encoding: "utf8",
    timeout: SET_UP_MS_MAX,
    env: { ...withoutCache(), HOME: home, ...environment },
  });
  return { code: result.status, stdout: result.stdout, stderr: result.stderr };
}

test("without a network the first command says what could not be fetched, in one line, and leaves nothing half made", () => {
  const result = run(join(copy, "moevie"), ["version"], NO_REGISTRY);
  expect(result.code).toBe(1);
  expect(result.stderr).toMatch(/^moevie: could not fetch node-\S+ from the npm registry: .+$/m);
  expect(result.stderr).not.toMatch(/^\s+at /m);
  expect(readdirSync(join(copy, ".cache")).filter((name) => name !== "tools")).toEqual([]);
});

test("a set-up that was killed with -9 does not hold up the next one, nor leave its scraps", async () => {
  const silent = createServer(() => undefined).listen(0, "127.0.0.1");
  await once(silent, "listening");
  const { port } = silent.address() as AddressInfo;
  const killed = spawn(join(copy, "moevie"), ["version"], {
    cwd: folder,
    env: { ...withoutCache(), HOME: home, npm_config_registry: `http://127.0.0.1:${port}` },
    stdio: ["ignore", "ignore", "pipe"],
    detached: true,
  });
  await once(silent, "connection");
  process.kill(-(killed.pid ?? 0), "SIGKILL");
  await once(killed, "close");
  silent.close();
  expect(run(join(copy, "moevie"), ["version"], NO_REGISTRY).stderr).toMatch(/ECONNREFUSED/);
  expect(readdirSync(join(copy, ".cache"))).toEqual(["tools"]);
});

test.each([
  [
    "a cache that cannot be made",
    { MOEVIE_CACHE: "/proc/moevie" },
    /^moevie: the cache folder \(MOEVIE_CACHE\): .*\/proc\/moevie/m,
  ],
  ["no tar", { PATH: "bin" }, /^moevie: could not unpack node-\S+ with tar: tar is missing$/m],
] as const)("%s is said in one line", (_case, environment, words) => {
  const bin = join(folder, "bin");
  mkdirSync(bin, { recursive: true });
  for (const name of ["node", "npm", "sh", "env", "dirname", "readlink", "mkdir"]) {
    const found = spawnSync("sh", ["-c", `readlink -f "$(command -v ${name})"`], { encoding: "utf8" }).stdout.trim();
    rmSync(join(bin, name), { force: true });
    symlinkSync(found, join(bin, name));
  }
  const path = "PATH" in environment ? { PATH: bin } : {};
  const { code, stderr } = run(join(copy, "moevie"), ["version"], { ...environment, ...path });
  expect({ code, stderr }).toMatchObject({ code: 1, stderr: expect.stringMatching(words) });
  expect(stderr).not.toMatch(/^\s+at /m);
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

test("an installation that was cut off is made whole by the next command", () => {
  rmSync(join(copy, "node_modules", ".moevie-ready"));
  rmSync(join(copy, "packages", "cli", "node_modules"), { recursive: true });
  const { code, stdout, stderr } = run(join(copy, "moevie"), ["version"], {
    MOEVIE_CACHE: join("a copy of moevie", ".cache"),
  });
  expect({ code, stdout: stdout.slice(0, 6) }, stderr).toEqual({ code: 0, stdout: "moevie" });
});
