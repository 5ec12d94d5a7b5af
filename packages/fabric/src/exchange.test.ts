// The exchange over real sockets: the same bytes by TCP and Unix socket, typed refusals, credits, deadlines, reconnection.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MoevieError } from "@moevie/contracts";
import { GrpcPeer, implement } from "@moevie/runtime";
import { afterEach, expect, test, vi } from "vitest";
import { requestLayout } from "./body.ts";
import { FrameKind, frameHeader } from "./frame.ts";
import { H2Type, PREFACE, h2Frame, settingsFrame } from "./h2-frame.ts";
import { RawPeer } from "./h2-link.fixture.ts";
import { HpackDecoder, encodeHeaders } from "./hpack.ts";
import { EXCHANGE_PATH, smallMessage } from "./link.ts";
import { d, holds, identity, reasonOf, request, source } from "./exchange.fixture.ts";
import { connectExchange, serveExchange, WireType } from "./index.ts";
import type { ExchangeClient, ExchangeHandler, ExchangeServer } from "./index.ts";

const cleanups: (() => Promise<void> | void)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).toReversed()) await cleanup();
});

async function serve(
  handler: ExchangeHandler,
  listen = "127.0.0.1:0",
  creditBytes = 1_000_000,
): Promise<ExchangeServer> {
  const server = await serveExchange({ listen, holds, handlers: { rows: handler }, creditBytes });
  cleanups.push(() => server.close(0));
  return server;
}

async function connect(address: string, onLateAnswer = (): void => undefined): Promise<ExchangeClient> {
  const changed = new EventTarget();
  const onChange = (): void => void changed.dispatchEvent(new Event("change"));
  const client = connectExchange(address, { onChange, onLateAnswer });
  cleanups.push(() => client.close());
  while (client.holds() === undefined) {
    await new Promise((resolve) => {
      changed.addEventListener("change", resolve, { once: true });
    });
  }
  return client;
}

function socketPath(): string {
  const folder = mkdtempSync(join(tmpdir(), "moevie-test-"));
  cleanups.push(() => rmSync(folder, { recursive: true }));
  return `unix:${join(folder, "shard.sock")}`;
}

test.each(["tcp", "unix"])("rows cross by %s and come back as weighted sums in every element type", async (kind) => {
  const server = await serve(identity, kind === "tcp" ? "127.0.0.1:0" : socketPath());
  const client = await connect(server.address);
  expect(client.holds()).toEqual(holds);
  for (const [wire, tolerance] of [
    [WireType.f32, 0],
    [WireType.f16, 1e-3],
    [WireType.bf16, 1e-2],
  ] as const) {
    const answer = await client.exchange(request({ wire }));
    const worst = answer.partial.reduce((most, value, at) => Math.max(most, Math.abs(value - (source[at] ?? 0))), 0);
    expect(worst).toBeLessThanOrEqual(tolerance);
    expect([answer.queueUs, answer.computeUs]).toEqual([1, 2]);
    expect(answer.upUs).toBeGreaterThanOrEqual(0);
    expect(answer.creditUs).toBeGreaterThanOrEqual(0);
    answer.release();
  }
});

test("an expert not held, by an old epoch or this one, and a failing handler are typed refusals; the stream goes on", async () => {
  let fail = true;
  const server = await serve((call) => (fail ? Promise.reject(new Error("boom")) : identity(call)));
  const client = await connect(server.address);
  expect(await reasonOf(client.exchange(request({ epoch: 3, layer: 1 })))).toBe("STALE_PLACEMENT");
  expect(await reasonOf(client.exchange(request({ layer: 1 })))).toBe("EXPERT_MISSING");
  expect(await reasonOf(client.exchange(request()))).toBe("INTERNAL");
  fail = false;
  expect((await client.exchange(request())).partial).toEqual(source);
});

test("what a shard holds changes under its routers: calls of the old epoch are answered while it has their experts", async () => {
  const server = await serve(identity);
  const clients = await Promise.all([connect(server.address), connect(server.address)]);
  server.announce({ ...holds, epoch: 5, slots: [...holds.slots, { layer: 0, expert: 7, slot: 3 }] });
  await vi.waitUntil(() => clients.every((client) => client.holds()?.epoch === 5));
  expect((await clients[0]!.exchange(request({ epoch: 4 }))).partial).toEqual(source);
  server.announce({ ...holds, epoch: 6, slots: holds.slots.slice(1) });
  expect(await reasonOf(clients[1]!.exchange(request({ epoch: 5 })))).toBe("STALE_PLACEMENT");
  // The shard says what it has before it says what it has not any more.
  expect(clients[1]!.holds()?.epoch).toBe(6);
});

test("the exchange's port answers services, too; what it refuses has its reason", async () => {
  const handlers = {
    ApplyPlacement: () => Promise.reject(new MoevieError("STALE_PLACEMENT", "old")),
    GetOperation: () => Promise.reject(new Error("boom")),
    GetHoldings: async () => ({ epoch: 7, experts: holds.slots }),
  };
  const services = [implement("moevie.v1.PlacementService", handlers)];
  const server = await serveExchange({ listen: "127.0.0.1:0", holds, handlers: { rows: identity }, services });
  cleanups.push(() => server.close(0));
  const peer = new GrpcPeer("moevie.v1.PlacementService", server.address);
  cleanups.push(() => peer.close());
  const call = { timeoutMs: 5000 };
  expect(await peer.unary("GetHoldings", {}, call)).toMatchObject({ epoch: 7, experts: holds.slots });
  expect(await reasonOf(peer.unary("ApplyPlacement", { operationId: "a" }, call))).toBe("STALE_PLACEMENT");
  expect(await reasonOf(peer.unary("GetOperation", {}, call))).toBe("INTERNAL");
  const large = { experts: Array.from({ length: 70_000 }, () => 1) };
  expect(await reasonOf(peer.unary("ApplyPlacement", large, call))).toBe("INVALID_FIELD");
  const other = new GrpcPeer("moevie.v1.DecodeService", server.address);
  cleanups.push(() => other.close());
  const decoding = (async () => {
    for await (const _ of other.bidi("Decode", (async function* () {})(), call)) expect.unreachable();
  })();
  expect(await reasonOf(decoding)).toBe("UNSUPPORTED");
});

test("late answers are dropped, aborted calls end at once", async () => {
  const gates: (() => void)[] = [];
  const server = await serve(async (call) => {
    await new Promise<void>((resolve) => gates.push(resolve));
    return identity(call);
  });
  let late = 0;
  const client = await connect(server.address, () => late++);
  expect(await reasonOf(client.exchange(request({ timeoutMs: 20 })))).toBe("DEADLINE");
  const abort = new AbortController();
  const aborted = reasonOf(client.exchange(request({ signal: abort.signal })));
  abort.abort();
  expect(await aborted).toBe("CANCELLED");
  while (gates.length < 2) await new Promise(setImmediate);
  const third = client.exchange(request());
  while (gates.length < 3) await new Promise(setImmediate);
  for (const open of gates) open();
  expect((await third).partial).toEqual(source);
  expect(late).toBe(2);
});

test("several routers share one budget: all finish though each round is larger than the budget", async () => {
  const server = await serve(identity, "127.0.0.1:0", 4000);
  const clients = await Promise.all([connect(server.address), connect(server.address), connect(server.address)]);
  const all = clients.flatMap((client) => Array.from({ length: 20 }, () => client.exchange(request())));
  for (const answer of await Promise.all(all)) expect(answer.partial).toEqual(source);
});

test("a request that never gets credit is refused in its time", async () => {
  const client = await connect((await serve(identity, "127.0.0.1:0", 64)).address);
  expect(await reasonOf(client.exchange(request({ timeoutMs: 30 })))).toBe("DEADLINE");
});

test("a shard that comes back is used again, calls in flight fail with PEER_UNAVAILABLE", async () => {
  const path = socketPath();
  const first = await serve(() => new Promise(() => undefined), path);
  const client = await connect(path);
  const lost = reasonOf(client.exchange(request()));
  await first.close(0);
  expect(await lost).toBe("PEER_UNAVAILABLE");
  expect(await reasonOf(client.exchange(request()))).toBe("PEER_UNAVAILABLE");
  await serve(identity, path);
  while (client.holds() === undefined) await new Promise(setImmediate);
  expect((await client.exchange(request())).partial).toEqual(source);
});

test("what a shard announces reaches its routers, and gRPC health answers on the same port", async () => {
  const server = await serve(identity);
  const client = await connect(server.address);
  server.announce({ ...holds, epoch: 5 });
  while (client.holds()?.epoch !== 5) await new Promise(setImmediate);
  server.setServing(true);
  const peer = new GrpcPeer("moevie.v1.DenoiseService", server.address);
  cleanups.push(() => peer.close());
  await peer.waitReady({ timeoutMs: 5000 });
});

test("an answer that is ready while the shard goes away still reaches its router, however large", async () => {
  const gate = Promise.withResolvers<void>();
  const server = await serve(
    async (asked) => {
      await gate.promise;
      return { partial: new Float32Array(asked.n * asked.d).fill(3), queueUs: 0, computeUs: 0 };
    },
    socketPath(),
    64_000_000,
  );
  const client = await connect(server.address);
  const width = 4096;
  const rows = Uint32Array.from({ length: 512 }, (_, row) => row);
  const csr = {
    experts: Uint16Array.of(0),
    offsets: Uint32Array.of(0, rows.length),
    rowIndex: rows,
    weights: new Float32Array(rows.length).fill(1),
  };
  const asked = client.exchange(request({ source: new Float32Array(512 * width), rows, d: width, csr }));
  // The request is at the shard once another one behind it is answered as refused.
  await reasonOf(client.exchange(request({ layer: 9 })));
  const closed = server.close(5000);
  gate.resolve();
  const { partial } = await asked;
  expect(partial.length).toBe(512 * width);
  expect(partial.every((value) => value === 3)).toBe(true);
  await closed;
});

/** A peer that speaks the exchange by hand, as far as its first stream. */
function handMade(server: ExchangeServer): RawPeer {
  const peer = RawPeer.to({ path: server.address.slice("unix:".length) });
  cleanups.push(() => {
    peer.socket.destroy();
  });
  peer.send(PREFACE, settingsFrame([]), h2Frame(H2Type.headers, 0x4, 1, encodeHeaders([[":path", EXCHANGE_PATH]])));
  return peer;
}

test("an answer's padding is zeros, whatever the memory held before", async () => {
  const server = await serve(identity, socketPath());
  const layout = requestLayout(1, d, 1, 1, WireType.f32);
  const body = Buffer.alloc(layout.total);
  body.writeUInt32LE(1, 4);
  const header = { epoch: 4, n: 1, d, entries: 1, experts: 1, rowsType: WireType.f32, answerType: WireType.f32 };
  const allocate = vi.spyOn(Buffer, "allocUnsafe").mockImplementation((bytes) => Buffer.alloc(bytes, 0xff));
  cleanups.push(() => allocate.mockRestore());
  const peer = handMade(server);
  const messages = [
    smallMessage(frameHeader(FrameKind.hello)),
    smallMessage(frameHeader(FrameKind.request, header), body),
  ];
  for (const message of messages) peer.send(h2Frame(H2Type.data, 0, 1, message));
  // Prefix of 5, header of 104, one count, then the padding up to 8 bytes.
  const answer = await peer.frame(({ type, payload }) => type === H2Type.data && payload[5 + 6] === FrameKind.partial);
  expect(answer.payload.readUInt32LE(109)).toBe(1);
  expect([...answer.payload.subarray(113, 117)]).toEqual([0, 0, 0, 0]);
});

test("a stream that ends inside a frame is refused, one that ends between two is not", async () => {
  const server = await serve(identity, socketPath());
  const hello = smallMessage(frameHeader(FrameKind.hello));
  for (const [bytes, status] of [
    [hello, "0"],
    [hello.subarray(0, 20), "3"],
  ] as const) {
    const peer = handMade(server);
    peer.send(h2Frame(H2Type.data, 0x1, 1, bytes));
    const trailers = await peer.frame(({ type, flags }) => type === H2Type.headers && (flags & 0x1) === 1);
    expect(new HpackDecoder().decode(trailers.payload).get("grpc-status")).toBe(status);
  }
});
