// Where an exchange's time goes, over real sockets: a link that is slow one way counts as that way, and credit that is spent as neither.
import { mkdtempSync, rmSync } from "node:fs";
import { createConnection, createServer } from "node:net";
import type { Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import { holds, identity, request } from "./exchange.fixture.ts";
import { connectExchange, serveExchange } from "./index.ts";
import type { ExchangeClient, ExchangeHandler } from "./index.ts";
import { requestBytes } from "./request.ts";

const SLOW_MS = 150;
const cleanups: (() => Promise<void> | void)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).toReversed()) await cleanup();
});

const pauseMs = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

function folder(): string {
  const made = mkdtempSync(join(tmpdir(), "moevie-time-"));
  cleanups.push(() => rmSync(made, { recursive: true }));
  return made;
}

async function serve(listen: string, handler: ExchangeHandler = identity, creditBytes = 1_000_000): Promise<string> {
  const server = await serveExchange({ listen, holds, handlers: { rows: handler }, creditBytes });
  cleanups.push(() => server.close(0));
  return server.address;
}

async function connect(address: string): Promise<ExchangeClient> {
  const client = connectExchange(address);
  cleanups.push(() => client.close());
  while (client.holds() === undefined) await pauseMs(5);
  return client;
}

function pass(from: Socket, target: Socket, ms: number): void {
  from.on("data", (bytes) => void pauseMs(ms).then(() => target.write(bytes)));
  from.on("error", () => target.destroy());
  from.on("close", () => target.destroy());
}

/** Passes bytes on between a socket file and another, each way as late as said. */
async function relay(at: string, to: string, lateMs: { readonly up: number; readonly down: number }): Promise<void> {
  const open = new Set<Socket>();
  const server = createServer((near) => {
    const far = createConnection(to);
    open.add(near).add(far);
    pass(near, far, lateMs.up);
    pass(far, near, lateMs.down);
  });
  await new Promise<void>((resolve) => server.listen(at, resolve));
  cleanups.push(() => {
    for (const socket of open) socket.destroy();
    server.close();
  });
}

test.each(["up", "down"] as const)("a link that is slow on the way %s counts as that way", async (way) => {
  const sockets = folder();
  await serve(`unix:${join(sockets, "shard.sock")}`);
  const late = { up: way === "up" ? SLOW_MS : 0, down: way === "down" ? SLOW_MS : 0 };
  await relay(join(sockets, "relay.sock"), join(sockets, "shard.sock"), late);
  const client = await connect(`unix:${join(sockets, "relay.sock")}`);
  const startMs = performance.now();
  const { upUs = Number.NaN, creditUs } = await client.exchange(request());
  const wireUs = (performance.now() - startMs) * 1000 - creditUs;
  const slowUs = way === "up" ? upUs : wireUs - upUs;
  expect(slowUs).toBeGreaterThan(0.95 * SLOW_MS * 1000);
});

test("waiting for credit that another exchange has spent is neither way's", async () => {
  const open = Promise.withResolvers<void>();
  const slow: ExchangeHandler = async (asked) => {
    await open.promise;
    return identity(asked);
  };
  const client = await connect(await serve("127.0.0.1:0", slow, requestBytes(request()) + 1));
  const [first, second] = [client.exchange(request()), client.exchange(request())];
  await pauseMs(SLOW_MS);
  open.resolve();
  const [{ creditUs: ahead }, { creditUs: behind, upUs }] = await Promise.all([first, second]);
  expect(ahead).toBeLessThan(behind);
  expect(behind).toBeGreaterThan(0.95 * SLOW_MS * 1000);
  expect(upUs).toBeGreaterThanOrEqual(0);
});
