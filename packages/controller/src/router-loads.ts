// Asks a router by HTTP: for the rows it counted, and for experts it reaches at no shard.
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
    throw noAnswer(address, cause);
  }
}

export interface RouterMisses {
  /** "layer.expert" of each it has not reached for a while. */
  readonly missing: ReadonlySet<string>;
  /** Steps that wait for one. */
  readonly waiting: number;
}

/** Asked by a controller that leads: from then on the router leaves it to find donors. Throws PEER_UNAVAILABLE. */
export async function routerMisses(address: string, signal: AbortSignal): Promise<RouterMisses> {
  const path = "/experts/missing?led";
  try {
    const page = JSON.parse(await httpText({ address, setting: "MOEVIE_ROUTERS_HTTP", path, signal })) as {
      readonly missing?: readonly (readonly number[])[];
      readonly waiting?: number;
    };
    return { missing: new Set(page.missing?.map((slot) => slot.join("."))), waiting: page.waiting ?? 0 };
  } catch (cause) {
    throw noAnswer(address, cause);
  }
}

function noAnswer(address: string, cause: unknown): MoevieError {
  const why = cause instanceof PlacementError || cause instanceof SyntaxError ? cause.message : "it does not answer";
  return new MoevieError("PEER_UNAVAILABLE", `Router ${address} does not say what it knows: ${why}.`, { cause });
}
