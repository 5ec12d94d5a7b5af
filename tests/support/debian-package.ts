// Unpacks a Debian package into the cache without root, for tests that need its programs.
import { spawnSync } from "node:child_process";
import { mkdirSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { cachedFolder } from "./cache.ts";

/** The package's folder `inside`, which holds the file `proof` (by default one of the package's name). Throws with apt's last line when it cannot be had. */
export function debianFolder(name: string, inside: string, proof = name): string {
  return cachedFolder(name, proof, (scratch) => {
    const own = ["-o", `Dir::State::Lists=${join(scratch, "lists")}`, "-o", `Dir::Cache=${join(scratch, "cache")}`];
    let download = spawnSync("apt-get", ["download", name], { cwd: scratch, encoding: "utf8" });
    if (download.status !== 0) {
      // The machine has no package lists, or old ones: read fresh ones into a folder of our own.
      for (const folder of ["lists/partial", "cache/archives/partial"])
        mkdirSync(join(scratch, folder), { recursive: true });
      spawnSync("apt-get", [...own, "update"], { cwd: scratch });
      download = spawnSync("apt-get", [...own, "download", name], { cwd: scratch, encoding: "utf8" });
    }
    const archive = readdirSync(scratch).find((file) => file.endsWith(".deb"));
    if (download.status !== 0 || archive === undefined)
      throw new Error(`cannot fetch ${name}: ${(download.stderr ?? String(download.error)).trim().split("\n").pop()}`);
    const unpack = spawnSync("dpkg", ["-x", archive, "unpacked"], { cwd: scratch, encoding: "utf8" });
    if (unpack.status !== 0) throw new Error(`cannot unpack ${archive}: ${unpack.stderr}`);
    return join(scratch, "unpacked", inside);
  });
}
