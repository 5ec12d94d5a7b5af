// Asks another process of the cluster for a page over HTTP, by a socket file or a port. Bounded in time and size.
import { request } from "node:http";
import { limit } from "@moevie/contracts";
import { parseAddress } from "./address.ts";

export interface HttpPage {
  /** As parseAddress takes it; `setting` is what its error calls it. */
  readonly address: string;
  readonly setting: string;
  readonly path: string;
  readonly signal?: AbortSignal;
}

/** The page's text. Throws for any status but 200, after metricsPeerMsMax, beyond metricsPeerBytesMax and on the signal. */
export function httpText({ address, setting, path, signal }: HttpPage): Promise<string> {
  const parsed = parseAddress(address, setting);
  const where = parsed.kind === "unix" ? { socketPath: parsed.path } : { host: parsed.host, port: parsed.port };
  const timeout = AbortSignal.timeout(limit("metricsPeerMsMax"));
  const bounded = signal === undefined ? timeout : AbortSignal.any([signal, timeout]);
  return new Promise((resolve, reject) => {
    const call = request({ ...where, path, signal: bounded }, (response) => {
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
