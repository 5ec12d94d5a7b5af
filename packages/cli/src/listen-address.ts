// Hosts and ports to listen on: parsed, judged and tried before any process starts.
import { createServer, isIP } from "node:net";
import { CommandError, UsageError } from "./failure.ts";

/** HOST:PORT, with brackets round an IPv6 address. */
export function hostPort(host: string, port: number): string {
  return isIP(host) === 6 ? `[${host}]:${port}` : `${host}:${port}`;
}

/** Can only this machine reach it? */
function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || (isIP(host) === 4 && host.startsWith("127."));
}

/** Checks --host against --insecure. Throws UsageError. */
export function checkHost(host: string, insecure: boolean): void {
  const wellFormed = isIP(host) !== 0 || /^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$/i.test(host);
  if (!wellFormed) throw new UsageError([{ flag: "--host", value: host, allowed: "an IP address or a host name" }]);
  if (isLoopback(host) || insecure) return;
  throw new UsageError([
    {
      flag: "--host",
      value: host,
      allowed:
        "127.0.0.1, ::1 or localhost; anybody who reaches another address can use this server, so it also needs --insecure",
    },
  ]);
}

/** Proves that a port can be had, by having it for a moment. Throws CommandError naming flag, value and cause. */
export async function checkPortFree(flag: string, host: string, port: number): Promise<void> {
  const server = createServer();
  const code = await new Promise<string | undefined>((resolve) => {
    server.once("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
    server.listen({ host, port, exclusive: true }, () => resolve(undefined));
  });
  if (code === undefined) {
    await new Promise((resolve) => server.close(resolve));
    return;
  }
  const causes: Readonly<Record<string, string>> = {
    EADDRINUSE: `port ${port} on ${host} is taken by another program; allowed: a free port, or 0 for any`,
    EACCES: `port ${port} on ${host} needs more rights than this user has; allowed: 1024 to 65535, or 0 for any`,
    EADDRNOTAVAIL: `${host} is not an address of this machine`,
    ENOTFOUND: `${host} is not a known host`,
  };
  throw new CommandError(
    `${flag} is ${port}; ${causes[code] ?? `${hostPort(host, port)} cannot be listened on (${code})`}`,
    "CONFIG_INVALID",
  );
}
