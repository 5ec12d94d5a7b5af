// The commands' way to a server: address checked, client loaded late, closed after use, interrupted with the command.
import { TENANT_ALLOWED, isTenant } from "@moevie/contracts";
import type { VideoClient } from "@moevie/client";
import { textFlag, type CommandContext, type RawFlags } from "./command.ts";
import { InterruptedError, UsageError } from "./failure.ts";

/** The server named by --server. Throws UsageError. */
function serverAddress(flags: RawFlags): string {
  const text = textFlag(flags, "server") ?? "";
  const port = Number(/^(?:\[[0-9a-f:]+\]|[^\s:/]+):(\d{1,5})$/i.exec(text)?.[1] ?? Number.NaN);
  if ((port > 0 && port <= 65_535) || /^unix:\/.+/.test(text)) return text;
  throw new UsageError([{ flag: "--server", value: text, allowed: "HOST:PORT, e.g. 127.0.0.1:7900" }]);
}

/** Opens a client, hands it to `work` with the signal of Ctrl-C, and closes it. */
export async function withServer<T>(
  context: CommandContext,
  flags: RawFlags,
  work: (client: VideoClient, signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const address = serverAddress(flags);
  const { VideoClient } = await import("@moevie/client");
  const tenant = textFlag(flags, "tenant");
  if (tenant !== undefined && !isTenant(tenant))
    throw new UsageError([{ flag: "--tenant", value: tenant, allowed: TENANT_ALLOWED }]);
  const client = new VideoClient(address, tenant === undefined ? {} : { tenant });
  const { signal } = context.interruption;
  try {
    return await work(client, signal);
  } catch (error) {
    throw signal.aborted ? new InterruptedError() : error;
  } finally {
    client.close();
  }
}

/** "videos/ID" from what the user wrote: the name, the bare id or the operation's name. Throws UsageError. */
export function videoName(text: string): string {
  const id = text.replace(/^(videos|operations)\//, "");
  if (/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(id)) return `videos/${id}`;
  throw new UsageError([
    {
      flag: "VIDEO",
      value: text,
      allowed: "a name that submit or list printed, e.g. videos/6f0d1c2e-3b4a-4c5d-8e9f-0a1b2c3d4e5f",
    },
  ]);
}
