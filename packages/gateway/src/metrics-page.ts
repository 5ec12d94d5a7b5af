// What the processes of one machine's cluster say over HTTP, on one page: metrics, each family once, and what experts are asked for. Adds
// nothing up: every process has its own service label, so its series stay its own.
import { request } from "node:http";
import { limit } from "@moevie/contracts";
import { parseAddress } from "@moevie/runtime";
import type { MetricsPeer } from "./config.ts";

/** The pages merged; a peer that does not answer shows as moevie_peer_up 0. */
export async function mergedMetrics(own: string, peers: readonly MetricsPeer[]): Promise<string> {
  const pages = await Promise.all(
    peers.map(async (peer) => ({ peer, page: await fetchPage(peer, "/metrics").catch(() => undefined) })),
  );
  const families = new Map<string, { head: string[]; samples: string[] }>();
  for (const page of [own, ...pages.flatMap(({ page }) => page ?? [])]) addPage(page, families);
  const up = ["# HELP moevie_peer_up 1 when the peer's metrics could be read.", "# TYPE moevie_peer_up gauge"];
  for (const { peer, page } of pages) up.push(`moevie_peer_up{peer="${peer.name}"} ${page === undefined ? 0 : 1}`);
  const lines = [...families.values()].flatMap(({ head, samples }) => [...head, ...samples]);
  return `${[...lines, ...up].join("\n")}\n`;
}

/** What each router says of its experts, by the peer's name. */
export async function expertLoads(peers: readonly MetricsPeer[]): Promise<object> {
  const routers = peers.filter(({ name }) => name.startsWith("router"));
  const pages = await Promise.all(
    routers.map(async (peer) => [peer.name, await fetchPage(peer, "/experts").then(JSON.parse, () => null)] as const),
  );
  return { routers: Object.fromEntries(pages) };
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

function fetchPage({ name, address }: MetricsPeer, path: string): Promise<string> {
  const parsed = parseAddress(address, `MOEVIE_METRICS_PEERS (${name})`);
  const where = parsed.kind === "unix" ? { socketPath: parsed.path } : { host: parsed.host, port: parsed.port };
  return new Promise((resolve, reject) => {
    const call = request({ ...where, path, signal: AbortSignal.timeout(limit("metricsPeerMsMax")) }, (response) => {
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
    });
    call.on("error", reject);
    call.end();
  });
}
