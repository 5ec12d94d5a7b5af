// Rows through a segment: the bytes of the socket's answers, whoever is late or dies, and nothing outside its bounds whatever a peer says.
import { execFileSync, spawnSync } from "node:child_process";
import { closeSync, mkdirSync, mkdtempSync, openSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, test, vi } from "vitest";
import { requestLayout } from "./body.ts";
import { d, holds, identity, reasonOf, request, source } from "./exchange.fixture.ts";
import { FrameFlag, FrameKind, decodeHeader, frameHeader } from "./frame.ts";
import { H2Type, PREFACE, h2Frame, settingsFrame } from "./h2-frame.ts";
import { RawPeer } from "./h2-link.fixture.ts";
import { encodeHeaders } from "./hpack.ts";
import { connectExchange, serveExchange, WireType } from "./index.ts";
import type { ExchangeClient, ExchangeConnectOptions, ExchangeHandler, ExchangeServer } from "./index.ts";
import { EXCHANGE_PATH, smallMessage } from "./link.ts";
import { SEGMENT_ROWS_AT, offerSegment, removeStaleSegments } from "./segment-file.ts";

const cleanups: (() => Promise<void> | void)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).toReversed()) await cleanup();
});

/** A folder for segments and one for sockets. */
function folders(): { readonly segments: string; readonly listen: string } {
  const root = mkdtempSync(join(tmpdir(), "moevie-segment-"));
  cleanups.push(() => rmSync(root, { recursive: true }));
  const segments = join(root, "segments");
  mkdirSync(segments);
  return { segments, listen: `unix:${join(root, "shard.sock")}` };
}

async function serve(handler: ExchangeHandler, listen: string, segmentFolder?: string): Promise<ExchangeServer> {
  const server = await serveExchange({ listen, holds, handlers: { rows: handler }, segmentFolder });
  cleanups.push(() => server.close(0));
  return server;
}

async function connect(
  address: string,
  segmentFolder?: string,
  options?: ExchangeConnectOptions,
): Promise<ExchangeClient> {
  const client = connectExchange(address, { ...options, segmentFolder });
  cleanups.push(() => client.close());
  await vi.waitUntil(() => client.holds() !== undefined);
  return client;
}

async function connectBySegment(
  address: string,
  folder: string,
  options?: ExchangeConnectOptions,
): Promise<ExchangeClient> {
  const client = await connect(address, folder, options);
  await vi.waitUntil(() => client.path === "segment");
  return client;
}

test("answers are those of the socket, bit for bit, in every element type; the file has no name any more", async () => {
  const { segments, listen } = folders();
  await serve(identity, listen, segments);
  const [bySegment, bySocket] = [await connectBySegment(listen, segments), await connect(listen)];
  expect(readdirSync(segments)).toEqual([]);
  for (const wire of [WireType.f32, WireType.f16, WireType.bf16]) {
    // Often enough that parts are used again.
    for (let round = 0; round < 50; round++) {
      const answers = await Promise.all(
        [bySegment, bySegment, bySocket].map((each) => each.exchange(request({ wire }))),
      );
      const [first, second, socket] = answers.map(({ partial }) => [...partial]);
      expect(first).toEqual(socket);
      expect(second).toEqual(socket);
      expect(answers[0]?.bytesIn).toBe(answers[2]?.bytesIn);
      expect((answers[0]?.bytesOut ?? 0) - (answers[2]?.bytesOut ?? 0), "the place of the rows").toBe(8);
      for (const answer of answers) answer.release();
    }
  }
});

test("a handler may write its answer where the rows lay, and answers that are held stay as they are", async () => {
  const { segments, listen } = folders();
  let placed = 0;
  await serve(
    ({ rows, out }) => {
      if (out !== undefined) placed++;
      const partial = out ?? new Float32Array(rows.length);
      for (const at of partial.keys()) partial[at] = (rows[at] ?? 0) * 2;
      return Promise.resolve({ partial, queueUs: 0, computeUs: 0 });
    },
    listen,
    segments,
  );
  const client = await connectBySegment(listen, segments);
  const held = await Promise.all(Array.from({ length: 8 }, () => client.exchange(request())));
  expect(placed).toBe(8);
  client.close();
  for (const { partial, release } of held) {
    expect([...partial]).toEqual([...source].map((value) => Math.fround(value * 2)));
    release();
  }
});

test("the part of a call that nobody waits for any more is nobody else's until its answer is here", async () => {
  const { segments, listen } = folders();
  const gates: (() => void)[] = [];
  await serve(
    async (call) => {
      if (call.attempt === 0) return identity(call);
      await new Promise<void>((resolve) => gates.push(resolve));
      return { partial: call.rows.fill(7), queueUs: 0, computeUs: 0 };
    },
    listen,
    segments,
  );
  let late = 0;
  const client = await connectBySegment(listen, segments, { onLateAnswer: () => late++ });
  expect(await reasonOf(client.exchange(request({ attempt: 1, timeoutMs: 30 })))).toBe("DEADLINE");
  const held = await client.exchange(request());
  gates[0]?.();
  await vi.waitUntil(() => late === 1);
  expect([...held.partial]).toEqual([...source]);
  held.release();
});

test("a shard that comes back gets a segment of its own; without a folder, or when it is missing, rows go by the socket", async () => {
  const { segments, listen } = folders();
  const first = await serve(identity, listen, segments);
  const client = await connectBySegment(listen, segments);
  await first.close(0);
  await vi.waitUntil(() => client.holds() === undefined);
  expect(client.path).toBe("unix");
  const second = await serve(identity, listen, segments);
  await vi.waitUntil(() => client.path === "segment");
  expect([...(await client.exchange(request())).partial]).toEqual([...source]);
  for (const [shards, routers, told] of [
    [undefined, segments, undefined],
    [segments, undefined, undefined],
    [segments, join(segments, "missing"), /ENOENT/],
    [join(segments, "missing"), segments, /the shard did not take it/],
  ] as const) {
    await second.close(0);
    const server = await serve(identity, listen, shards);
    const why: string[] = [];
    const other = await connect(listen, routers, { onNoSegment: (text) => why.push(text) });
    expect([...(await other.exchange(request())).partial]).toEqual([...source]);
    expect(other.path).toBe("unix");
    if (told !== undefined) await vi.waitUntil(() => told.test(why[0] ?? ""));
    expect(why).toHaveLength(told === undefined ? 0 : 1);
    await server.close(0);
  }
  await vi.waitUntil(() => readdirSync(segments).length === 0);
});

const echo: ExchangeHandler = ({ rows }) => Promise.resolve({ partial: rows.slice(), queueUs: 0, computeUs: 0 });

test("a folder that fills up costs a call its place, and no process its life; what there is goes on being used", async () => {
  const { segments, listen } = folders();
  const mounted = spawnSync("mount", ["-t", "tmpfs", "-o", "size=400k", "none", segments], { encoding: "utf8" });
  expect(mounted.status, mounted.stderr).toBe(0);
  cleanups.push(() => void spawnSync("umount", ["--lazy", segments]));
  await serve(echo, listen, segments);
  const client = await connectBySegment(listen, segments);
  const [n, width] = [1000, 64];
  const rows = Uint32Array.from({ length: n }, (_, row) => row);
  const large = Float32Array.from({ length: n * width }, (_, at) => Math.cos(at));
  const csr = {
    experts: Uint16Array.of(0),
    offsets: Uint32Array.of(0, n),
    rowIndex: rows,
    weights: large.subarray(0, n),
  };
  const call = (): ReturnType<ExchangeClient["exchange"]> =>
    client.exchange(request({ source: large, rows, d: width, csr }));
  for (let round = 0; round < 3; round++) {
    const answers = await Promise.all([call(), call(), call()]);
    const least = Math.min(...answers.map(({ bytesOut }) => bytesOut));
    expect(
      answers.map(({ bytesOut }) => bytesOut - least),
      "one by the segment, two by the socket",
    ).toEqual([8, 0, 0]);
    for (const { partial, release } of answers) {
      expect(partial).toEqual(large);
      release();
    }
  }
});

const named = (digit: string): string => `moevie-${digit.repeat(32)}.segment`;

test("what dead routers left is removed, and nothing else", async () => {
  const { segments } = folders();
  const alive = await offerSegment(segments);
  for (const name of [named("a"), named("b"), "moevie-short.segment", "other"]) writeFileSync(join(segments, name), "");
  // One more is held by a process that lives.
  const holder = openSync(join(segments, named("b")), "r+");
  const { fileMapper } = await import("./mapped-memory.ts");
  expect((await fileMapper()).lock(holder)).toBe(true);
  expect(await removeStaleSegments(segments)).toBe(1);
  expect(readdirSync(segments)).toHaveLength(4);
  expect(readdirSync(segments)).not.toContain(named("a"));
  closeSync(holder);
  // The map is the file's as the descriptor is.
  closeSync(alive.descriptor);
  expect(await removeStaleSegments(segments)).toBe(1);
  alive.memory.retire();
  expect(await removeStaleSegments(segments)).toBe(1);
});

/** A router by hand, greeted. */
async function byHand(server: ExchangeServer): Promise<RawPeer> {
  const peer = RawPeer.to({ path: server.address.slice("unix:".length) });
  cleanups.push(() => {
    peer.socket.destroy();
  });
  peer.send(PREFACE, settingsFrame([]), h2Frame(H2Type.headers, 0x4, 1, encodeHeaders([[":path", EXCHANGE_PATH]])));
  peer.send(h2Frame(H2Type.data, 0, 1, smallMessage(frameHeader(FrameKind.hello))));
  const told = await frameOf(peer, FrameKind.holds);
  expect(decodeHeader(told, 5).flags & FrameFlag.segment, "the shard says that it takes a segment").not.toBe(0);
  return peer;
}

async function frameOf(peer: RawPeer, kind: FrameKind): Promise<Buffer> {
  return (await peer.frame(({ type, payload }) => type === H2Type.data && payload[5 + 6] === kind)).payload;
}

/** A request of one row whose place in the segment is `place`. */
function placedRequest(place: bigint, answerType: WireType = WireType.f32): Buffer {
  const { rows } = requestLayout(1, d, 1, 1, WireType.f32);
  const body = Buffer.alloc(rows + 8);
  body.writeUInt32LE(1, 4);
  body.writeBigUInt64LE(place, rows);
  const sizes = { epoch: 4, n: 1, d, entries: 1, experts: 1, rowsType: WireType.f32, answerType };
  return smallMessage(frameHeader(FrameKind.request, { ...sizes, flags: FrameFlag.segment }), body);
}

test("a place outside the segment is refused, whatever it names; the stream goes on", async () => {
  const { segments, listen } = folders();
  const server = await serve(identity, listen, segments);
  const peer = await byHand(server);
  const ask = async (message: Buffer): Promise<string> => {
    peer.frames.length = 0;
    peer.send(h2Frame(H2Type.data, 0, 1, message));
    return (await frameOf(peer, FrameKind.error)).toString("latin1", 109);
  };
  expect(await ask(placedRequest(4096n))).toContain("a segment that nobody shares");
  const made = await offerSegment(segments);
  cleanups.push(() => {
    made.unlink();
    closeSync(made.descriptor);
  });
  peer.send(h2Frame(H2Type.data, 0, 1, smallMessage(frameHeader(FrameKind.segment), made.offer)));
  expect(made.proven((await frameOf(peer, FrameKind.segment)).subarray(109))).toBe(true);
  const end = BigInt(made.bytes);
  for (const place of [0n, 4095n, 4100n, end - 8n, end, end + 4096n, 2n ** 53n + 8n, 2n ** 64n - 8n])
    expect
      .soft(await ask(placedRequest(place)), `${place}`)
      .toMatch(/INVALID_FIELD.*of the segment; allowed: from 4096/s);
  expect(await ask(placedRequest(4096n, WireType.bf16))).toContain("in their own type");
  peer.send(h2Frame(H2Type.data, 0, 1, placedRequest(BigInt(SEGMENT_ROWS_AT))));
  const answer = await frameOf(peer, FrameKind.partial);
  expect(answer.readBigUInt64LE(109 + 8)).toBe(4096n);
});

test("offers that are not sound are declined, a second one ends the stream", async () => {
  const { segments, listen } = folders();
  const server = await serve(identity, listen, segments);
  const made = await offerSegment(segments);
  cleanups.push(() => {
    made.unlink();
    closeSync(made.descriptor);
  });
  const larger = Buffer.from(made.offer);
  larger.writeBigUInt64LE(BigInt(made.bytes - 4096));
  const elsewhere = Buffer.from(made.offer);
  elsewhere.write("../../", 24, "latin1");
  const missing = Buffer.from(made.offer);
  missing.write("moevie-0000", 24, "latin1");
  for (const offer of [Buffer.alloc(0), Buffer.alloc(71), larger, elsewhere, missing]) {
    const peer = await byHand(server);
    peer.send(h2Frame(H2Type.data, 0, 1, smallMessage(frameHeader(FrameKind.segment), offer)));
    expect(await frameOf(peer, FrameKind.segment)).toHaveLength(109);
    peer.send(h2Frame(H2Type.data, 0, 1, smallMessage(frameHeader(FrameKind.segment), made.offer)));
    await peer.frame(({ type }) => type === H2Type.headers);
  }
});

test("a link in place of the file is not followed", async () => {
  const { segments, listen } = folders();
  const server = await serve(identity, listen, segments);
  const made = await offerSegment(segments);
  cleanups.push(() => closeSync(made.descriptor));
  const name = readdirSync(segments)[0] ?? "";
  execFileSync("mv", [join(segments, name), join(segments, "real")]);
  execFileSync("ln", ["-s", join(segments, "real"), join(segments, name)]);
  const peer = await byHand(server);
  peer.send(h2Frame(H2Type.data, 0, 1, smallMessage(frameHeader(FrameKind.segment), made.offer)));
  expect(await frameOf(peer, FrameKind.segment)).toHaveLength(109);
});
