// One page of metrics for one machine's cluster: the gateway's own and those of its peers, each family
// once. Adds nothing up: every process has its own service label, so its series stay its own.
import { request } from "node:http";
import { limit } from "@moevie/contracts";
import { parseAddress } from "@moevie/runtime";
import type { MetricsPeer } from "./config.ts";

/** The pages merged; a peer that does not answer shows as moevie_peer_up 0. */
export async function mergedMetrics(own: string, peers: readonly MetricsPeer[]): Promise<string> {
  const pages = await Promise.all(
    peers.map(async (peer) => ({ peer, page: await fetchPage(peer).catch(() => undefined) })),
  );
  const families = new Map<string, { head: string[]; samples: string[] }>();
  for (const page of [own, ...pages.flatMap(({ page }) => page ?? [])]) addPage(page, families);
  const up = ["# HELP moevie_peer_up 1 when the peer's metrics could be read.", "# TYPE moevie_peer_up gauge"];
  for (const { peer, page } of pages) up.push(`moevie_peer_up{peer="${peer.name}"} ${page === undefined ? 0 : 1}`);
  const lines = [...families.values()].flatMap(({ head, samples }) => [...head, ...samples]);
  return `${[...lines, ...up].join("\n")}\n`;
}

/** Sorts the lines of a page into families by their HELP and TYPE heads. */
function addPage(page: string, families: Map<string, { head: string[]; samples: string[] }>): void {
  let family: { head: string[]; samples: string[] } | undefined;
  let fresh = false;
  for (const line of page.split("\n")) {
    const name = /^# HELP (\S+)/.exec(line)?.[1];
    if (name !== undefined) {
      fresh = !families.has(name);
      family = families.get(name) ?? { head: [], samples: [] };
      families.set(name, family);
    }
    if (family === undefined || line === "") continue;
    if (!line.startsWith("#")) family.samples.push(line);
    else if (fresh) family.head.push(line);
  }
}

function fetchPage({ name, address }: MetricsPeer): Promise<string> {
  const parsed = parseAddress(address, `MOEVIE_METRICS_PEERS (${name})`);
  const where = parsed.kind === "unix" ? { socketPath: parsed.path } : { host: parsed.host, port: parsed.port };
  return new Promise((resolve, reject) => {
    const call = request(
      { ...where, path: "/metrics", signal: AbortSignal.timeout(limit("metricsPeerMsMax")) },
      (response) => {
        const parts: Buffer[] = [];
        let bytes = 0;
        response.on("data", (part: Buffer) => {
          bytes += part.byteLength;
          if (bytes > limit("metricsPeerBytesMax")) call.destroy(new Error("page too large"));
          else parts.push(part);
        });
        response.on("end", () => {
          if (response.statusCode === 200) resolve(Buffer.concat(parts).toString("utf8"));
          else reject(new Error(`status ${response.statusCode}`));
        });
        response.on("error", reject);
      },
    );
    call.on("error", reject);
    call.end();
  });
}
