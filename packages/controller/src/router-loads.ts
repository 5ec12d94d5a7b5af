// Asks a router for the rows it counted, by HTTP.
import { MoevieError } from "@moevie/contracts";
import { PlacementError, parseLoads } from "@moevie/placement";
import { httpText } from "@moevie/runtime";

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
