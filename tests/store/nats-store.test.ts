// The NATS store against the contract suite, on real servers: the oldest that moevie works with, the current one, and three together.
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe } from "vitest";
import { openNatsStore, type JobStore } from "@moevie/job-store";
import { jobStoreContract, type OpenedStore } from "@moevie/job-store/contract-suite";
import { startNatsCluster, NatsServer } from "../support/nats-server.ts";
import { damageObject } from "../support/nats-objects.ts";

interface Case {
  readonly name: string;
  readonly replicas: number;
  readonly start: () => Promise<readonly NatsServer[]>;
}

const CASES: readonly Case[] = [
  { name: "nats-server 2.9", replicas: 1, start: async () => [await NatsServer.start({ version: "2.9" })] },
  { name: "the current nats-server", replicas: 1, start: async () => [await NatsServer.start()] },
  { name: "three nats-servers", replicas: 3, start: () => startNatsCluster() },
];

describe.each(CASES)("on $name", ({ name, replicas, start }) => {
  let servers: readonly NatsServer[] = [];
  beforeAll(async () => {
    servers = await start();
  });
  afterAll(async () => {
    for (const server of servers) await server.close();
  });

  jobStoreContract(name, async (): Promise<OpenedStore> => {
    const prefix = `test-${randomUUID().slice(0, 8)}`;
    const access = { servers: servers.map(({ url }) => url) };
    const open = (options: Parameters<OpenedStore["reopen"]>[0] = {}): Promise<JobStore> =>
      openNatsStore(access, { prefix, replicas, ...options });
    return {
      store: await open(),
      reopen: open,
      folder: await mkdtemp(join(tmpdir(), "moevie-store-")),
      damage: (id, file, how) => damageObject(access.servers, prefix, `${id}/${file}`, how),
    };
  });
});
