// Asks a router for the rows it counted, by HTTP.
import { request } from "node:http";
import { MoevieError, limit } from "@moevie/contracts";
import { PlacementError, parseLoads } from "@moevie/placement";
import { parseAddress } from "@moevie/runtime";

/** Rows by layer and expert since the router's start. Throws PEER_UNAVAILABLE. */
export async function routerLoads(address: string, signal: AbortSignal): Promise<Float64Array[]> {
  try {
    return parseLoads(JSON.parse(await fetchText(address, signal)));
  } catch (cause) {
    const why = cause instanceof PlacementError || cause instanceof SyntaxError ? cause.message : "it does not answer";
    throw new MoevieError("PEER_UNAVAILABLE", `Router ${address} has no loads: ${why}.`, { cause });
  }
}

function fetchText(address: string, signal: AbortSignal): Promise<string> {
  const parsed = parseAddress(address, "MOEVIE_ROUTERS_HTTP");
  const where = parsed.kind === "unix" ? { socketPath: parsed.path } : { host: parsed.host, port: parsed.port };
  const bounded = AbortSignal.any([signal, AbortSignal.timeout(limit("metricsPeerMsMax"))]);
  return new Promise((resolve, reject) => {
    const call = request({ ...where, path: "/experts", signal: bounded }, (response) => {
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
