// Runs every check and test of the project, one line a part, and ends with `N passed, N failed`.
// Plain Node, no dependencies; called by `./moevie test [PART...]` under the pinned Node. It decides nothing about what
// a part checks: each part is an ordinary command that a person can also run.
import { spawn } from "node:child_process";
import { mkdirSync, readFileSync, rmSync } from "node:fs";
import { delimiter, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const bin = join(root, "node_modules", ".bin");
const cache = process.env.MOEVIE_CACHE || join(root, ".cache");
const reports = join(cache, "test");
const PART_MS_MAX = 35 * 60_000;
const KILL_AFTER_MS = 5_000;
/** A line of a part that passed is shown when it begins with this: seeds and figures that differ from run to run. */
const SHOWN = "figures: ";

/** A command counts as one test. */
const command = (name, file, args, cwd = root) => ({ name, file, args, cwd });
/** A vitest project counts its own tests. */
const project = (name) => ({
  name,
  file: join(bin, "vitest"),
  args: [
    "run",
    "--project",
    name,
    "--reporter=default",
    "--reporter=json",
    `--outputFile.json=${join(reports, `${name}.json`)}`,
  ],
  cwd: root,
  report: join(reports, `${name}.json`),
});

const PARTS = [
  command("formatting", join(bin, "oxfmt"), ["--check"]),
  command("lint", join(bin, "oxlint"), ["--type-aware"]),
  command("types", join(bin, "tsc"), ["-b"]),
  command("generated", process.execPath, [join(root, "tools", "generate-types.mjs"), "--check"]),
  command("documents", process.execPath, [join(root, "tools", "generate-docs.mjs"), "--check"]),
  command("proto-lint", join(bin, "buf"), ["lint"], join(root, "protos")),
  command("proto-breaking", join(bin, "buf"), ["breaking", "--against", "baseline.binpb"], join(root, "protos")),
  project("tidy"),
  project("unit"),
  project("crossing"),
];

let running;
/** Ends a part with all that it started: parts lead their own process group. */
function endGroup(signal) {
  if (running?.pid === undefined) return;
  try {
    process.kill(-running.pid, signal);
  } catch {
    // The group is gone already.
  }
}

function run(part) {
  return new Promise((resolve) => {
    const chunks = [];
    const path = [dirname(process.execPath), bin, process.env.PATH ?? ""].join(delimiter);
    const env = { ...process.env, PATH: path, BUF_CACHE_DIR: join(cache, "buf"), NO_COLOR: "1", MOEVIE_CACHE: cache };
    running = spawn(part.file, part.args, { cwd: part.cwd, env, stdio: ["ignore", "pipe", "pipe"], detached: true });
    running.stdout.on("data", (chunk) => chunks.push(chunk));
    running.stderr.on("data", (chunk) => chunks.push(chunk));
    let outOfTime = false;
    const timer = setTimeout(() => {
      outOfTime = true;
      endGroup("SIGTERM");
      setTimeout(() => endGroup("SIGKILL"), KILL_AFTER_MS).unref();
    }, PART_MS_MAX);
    running.on("error", (error) => chunks.push(Buffer.from(`${error.message}\n`)));
    running.on("close", (code) => {
      clearTimeout(timer);
      running = undefined;
      if (outOfTime) chunks.push(Buffer.from(`\nstopped after ${PART_MS_MAX / 60_000} minutes\n`));
      resolve({ ok: code === 0 && !outOfTime, output: Buffer.concat(chunks).toString("utf8") });
    });
  });
}

/** Tests of a vitest report; a file that could not be loaded, or a run that broke off, is one failure. */
function count(part, ok) {
  if (part.report === undefined) return { passed: ok ? 1 : 0, failed: ok ? 0 : 1, skipped: 0 };
  let report;
  try {
    report = JSON.parse(readFileSync(part.report, "utf8"));
  } catch {
    return { passed: 0, failed: 1, skipped: 0 };
  }
  const broken = report.testResults.filter(
    (file) => file.status === "failed" && !file.assertionResults.some((test) => test.status === "failed"),
  ).length;
  const failed = report.numFailedTests + broken;
  return { passed: report.numPassedTests, failed: failed === 0 && !ok ? 1 : failed, skipped: report.numPendingTests };
}

async function main() {
  const asked = process.argv.slice(2);
  const names = PARTS.map((part) => part.name);
  const unknown = asked.filter((name) => !names.includes(name));
  if (asked.includes("--help") || unknown.length > 0) {
    const help = `usage: moevie test [PART...]\nparts: ${names.join(", ")}\nexample: moevie test lint unit\n`;
    (asked.includes("--help") ? process.stdout : process.stderr).write(help);
    process.exit(asked.includes("--help") ? 0 : 2);
  }
  mkdirSync(reports, { recursive: true });
  let passed = 0;
  let failed = 0;
  for (const part of PARTS.filter((each) => asked.length === 0 || asked.includes(each.name))) {
    if (part.report !== undefined) rmSync(part.report, { force: true });
    const startMs = performance.now();
    const { ok, output } = await run(part);
    const counted = count(part, ok);
    passed += counted.passed;
    failed += counted.failed;
    const skipped = counted.skipped === 0 ? "" : `, ${counted.skipped} skipped`;
    const seconds = ((performance.now() - startMs) / 1000).toFixed(1);
    if (counted.failed > 0) console.log(output.trimEnd());
    else for (const line of output.split("\n")) if (line.startsWith(SHOWN)) console.log(line);
    console.log(
      `${counted.failed === 0 ? "ok  " : "FAIL"} ${part.name.padEnd(14)} ${counted.passed} passed, ${counted.failed} failed${skipped} in ${seconds} s`,
    );
  }
  console.log(`${passed} passed, ${failed} failed`);
  process.exit(failed === 0 ? 0 : 1);
}

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) {
  process.on(signal, () => {
    endGroup("SIGTERM");
    setTimeout(() => {
      endGroup("SIGKILL");
      process.exit(130);
    }, KILL_AFTER_MS);
    running?.once("close", () => process.exit(130));
  });
}
process.on("exit", () => endGroup("SIGKILL"));
await main();
