// Ports for servers that do not say which one they took.
import { createServer, type AddressInfo, type Server } from "node:net";

const TRIES_MAX = 50;

/** A port that was free a moment ago on 127.0.0.1. */
export function freePort(): Promise<number> {
  return freePorts(1);
}

/** The first of `count` ports in a row that were free a moment ago on 127.0.0.1. */
export async function freePorts(count: number): Promise<number> {
  for (let tries = 1; ; tries++) {
    const servers: Server[] = [];
    try {
      servers.push(await listen(0));
      const { port } = servers[0]!.address() as AddressInfo;
      for (let at = 1; at < count; at++) servers.push(await listen(port + at));
      return port;
    } catch (thrown) {
      if (tries === TRIES_MAX) throw thrown;
    } finally {
      for (const server of servers) await new Promise((resolve) => server.close(resolve));
    }
  }
}

async function listen(port: number): Promise<Server> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, "127.0.0.1", resolve);
  });
  return server;
}
