// The wrapper on a fresh machine: a copy of the tracked files in a folder with a space in its name, an empty home and an empty
// cache. The first command sets everything up, the second one nothing; without a network the first says so in one line.
import { spawnSync } from "node:child_process";
import { chmodSync, cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, symlinkSync } from "node:fs";
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

function run(
  command: string,
  args: readonly string[],
  environment: Readonly<Record<string, string>> = {},
): { code: number | null; stdout: string; stderr: string } {
  const { MOEVIE_CACHE: _cache, ...inherited } = process.env;
  const result = spawnSync(command, args, {
    cwd: folder,
    encoding: "utf8",
    timeout: SET_UP_MS_MAX,
    env: { ...inherited, HOME: home, ...environment },
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
