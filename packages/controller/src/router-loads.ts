// Asks a router for the rows it counted, by HTTP.
import { lookup } from "node:dns/promises";
import { MoevieError } from "@moevie/contracts";
import { PlacementError, parseLoads } from "@moevie/placement";
import { formatAddress, httpText, parseAddress } from "@moevie/runtime";

/** Every machine that `addresses` stand for; a name that does not resolve stands for itself, so that its failure is told. */
export async function routerAddresses(addresses: readonly string[]): Promise<readonly string[]> {
  const all = addresses.map(async (text) => {
    const address = parseAddress(text, "MOEVIE_ROUTERS_HTTP");
    if (address.kind === "unix") return [text];
    const found = await lookup(address.host, { all: true }).catch(() => []);
    return found.length === 0 ? [text] : found.map(({ address: host }) => formatAddress({ ...address, host }));
  });
  return [...new Set((await Promise.all(all)).flat())].sort();
}

/** Rows by layer and expert since the router's start. Throws PEER_UNAVAILABLE. */
export async function routerLoads(address: string, signal: AbortSignal): Promise<Float64Array[]> {
  try {
    return parseLoads(
      JSON.parse(await httpText({ address, setting: "MOEVIE_ROUTERS_HTTP", path: "/experts", signal })),
    );
  } catch (cause) {
    const why = cause instanceof PlacementError || cause instanceof SyntaxError ? cause.message : "it does not answer";
    throw new MoevieError("PEER_UNAVAILABLE", `Router ${address} has no loads: ${why}.`, { cause });
  }
}
