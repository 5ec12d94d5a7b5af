// Addresses of servers and peers: HOST:PORT or unix:PATH. Parsing only.
import { MoevieError } from "@moevie/contracts";

export type Address =
  | { readonly kind: "tcp"; readonly host: string; readonly port: number }
  | { readonly kind: "unix"; readonly path: string };

/** Longest path a Unix socket takes on Linux (sun_path) without its closing zero, bytes. */
const UNIX_PATH_BYTES_MAX = 107;

/** Parses `HOST:PORT`, `[V6]:PORT` or `unix:PATH`; `name` is the setting to blame. Throws CONFIG_INVALID. */
export function parseAddress(text: string, name: string): Address {
  if (text.startsWith("unix:")) {
    const path = text.slice("unix:".length);
    if (path === "" || Buffer.byteLength(path) > UNIX_PATH_BYTES_MAX)
      throw invalid(name, text, `unix:PATH with a path of 1 to ${UNIX_PATH_BYTES_MAX} bytes`);
    return { kind: "unix", path };
  }
  const match = /^(\[[0-9a-fA-F:]+\]|[^:\s]+):(\d{1,5})$/.exec(text);
  const port = Number(match?.[2]);
  if (match === null || port > 65_535) throw invalid(name, text, "HOST:PORT with a port of 0 to 65535, or unix:PATH");
  return { kind: "tcp", host: (match[1] ?? "").replace(/^\[|\]$/g, ""), port };
}

/** The address as text, as parseAddress takes it. */
export function formatAddress(address: Address): string {
  if (address.kind === "unix") return `unix:${address.path}`;
  return address.host.includes(":") ? `[${address.host}]:${address.port}` : `${address.host}:${address.port}`;
}

function invalid(name: string, value: string, allowed: string): MoevieError {
  return new MoevieError("CONFIG_INVALID", `${name} is "${value}"; allowed: ${allowed}`);
}
