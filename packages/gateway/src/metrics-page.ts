// What the processes of one machine's cluster say over HTTP, on one page: metrics, each family once, and what experts are asked for and who moves them. Adds
// nothing up: every process has its own service label, so its series stay its own.
import { httpText } from "@moevie/runtime";
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

/** What each router says of its experts, and each controller of what it does with them, by the peer's name. */
export async function expertLoads(peers: readonly MetricsPeer[]): Promise<object> {
  const [routers, controllers] = await Promise.all([
    pagesOf(peers, "router", "/experts"),
    pagesOf(peers, "controller", "/plan"),
  ]);
  return { routers, controllers };
}

/** JSON of the peers whose names begin with `kind`; null of those that do not answer. */
async function pagesOf(peers: readonly MetricsPeer[], kind: string, path: string): Promise<object> {
  const asked = peers.filter(({ name }) => name.startsWith(kind));
  const pages = asked.map(
    async (peer) => [peer.name, await fetchPage(peer, path).then(JSON.parse, () => null)] as const,
  );
  return Object.fromEntries(await Promise.all(pages)) as object;
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
  return httpText({ address, setting: `MOEVIE_METRICS_PEERS (${name})`, path });
}
