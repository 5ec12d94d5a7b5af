// Opens the job store on a NATS server: connects, makes what is missing there, and waits for servers that were just started.
import { asMoevieError, limit } from "@moevie/contracts";
import { pause } from "@moevie/runtime";
import type { JobStore } from "./job-store.ts";
import { connectNats, withNats, type NatsAccess } from "./nats-connection.ts";
import { startNatsStore, type NatsStoreOptions } from "./nats-store.ts";
import { openStreams, type NatsParts } from "./nats-streams.ts";

/** Connects and makes what is missing. Throws PEER_UNAVAILABLE, CONFIG_INVALID and DISK_FULL. */
export async function openNatsStore(access: NatsAccess, options: NatsStoreOptions = {}): Promise<JobStore> {
  const connection = await connectNats(access, "moevie job store");
  try {
    const onNotice = options.onNotice ?? (() => undefined);
    const { prefix = "moevie", replicas = 1 } = options;
    const parts = await openedStreams(() => openStreams(connection, prefix, replicas, onNotice));
    return await startNatsStore(parts, options);
  } catch (thrown) {
    await connection.close();
    throw thrown;
  }
}

/** Servers that were just started have no leader yet: they are waited for. */
async function openedStreams(open: () => Promise<NatsParts>): Promise<NatsParts> {
  const endMs = performance.now() + limit("natsFirstConnectMsMax");
  for (;;) {
    try {
      return await withNats(open);
    } catch (thrown) {
      if (asMoevieError(thrown).reason !== "PEER_UNAVAILABLE" || performance.now() > endMs) throw thrown;
      await pause(limit("connectRetryMsMax") / 4);
    }
  }
}
