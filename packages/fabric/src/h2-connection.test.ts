// The HTTP/2 link over real sockets: both ends send at once without standing still, windows are kept, Node's own HTTP/2 is
// understood both ways, and whatever breaks the protocol ends the connection with its code.
import * as fc from "fast-check";
import { connect as connectHttp2, createServer as createHttp2Server } from "node:http2";
import { createServer } from "node:net";
import { afterEach, expect, test } from "vitest";
import { H2Connection } from "./h2-connection.ts";
import { Counter, RawPeer, cleanUp, cleanups, dial, listening, serve } from "./h2-link.fixture.ts";
import { H2Error, H2Setting, H2Type, PREFACE, h2Frame, h2Header, h2Number, settingsFrame } from "./h2-frame.ts";
import { HpackDecoder, encodeHeaders } from "./hpack.ts";

afterEach(cleanUp);

const MIB = 1_048_576;

/** Bytes that differ from place to place. */
function pattern(bytes: number): Uint8Array {
  return Uint8Array.from({ length: bytes }, (_, at) => (at * 7 + (at >> 8)) & 0xff);
}

function sumOf(...parts: readonly Uint8Array[]): number {
  let sum = 0;
  for (const part of parts) for (const byte of part) sum = (sum * 31 + byte) >>> 0;
  return sum;
}

test.each(["unix", "tcp"] as const)(
  "both ends send far more than the kernel buffers at once, by %s",
  async (transport) => {
    const big = pattern(4 * MIB);
    const atServer = new Counter();
    const { address } = await serve(transport, (stream) => {
      stream.respond([[":status", "200"]]);
      for (let times = 0; times < 6; times++) stream.write([big]);
      return atServer;
    });
    const atClient = new Counter();
    const { stream } = dial(address, atClient);
    const sent = Promise.withResolvers<void>();
    for (let times = 0; times < 6; times++) stream.write([big], times === 5 ? sent.resolve : undefined);
    await Promise.all([atServer.until(24 * MIB), atClient.until(24 * MIB), sent.promise]);
    const wanted = sumOf(big, big, big, big, big, big);
    expect([atServer.sum, atClient.sum]).toEqual([wanted, wanted]);
  },
);

test("more than the window goes through while the receiver reads on", async () => {
  const block = new Uint8Array(16 * MIB);
  const atServer = new Counter();
  const { address } = await serve("unix", () => atServer);
  const { stream } = dial(address, new Counter());
  for (let times = 0; times < 9; times++) stream.write([block]);
  await atServer.until(9 * block.length);
});

test("accepted and opened sockets read into the memory they are given", async () => {
  const atServer = new Counter();
  const { address, connections } = await serve("unix", () => atServer);
  const { stream, connection } = dial(address, atServer);
  let pushed = 0;
  stream.write([pattern(MIB)]);
  await atServer.until(1);
  for (const { parser } of [connection, ...connections]) {
    const push = parser.push.bind(parser);
    parser.push = (chunk) => {
      pushed = Math.max(pushed, chunk.length);
      push(chunk);
    };
  }
  stream.write([pattern(4 * MIB)]);
  await atServer.until(5 * MIB);
  // What is pushed is the small staging memory: large payload goes past it.
  expect(pushed).toBeLessThanOrEqual(16_384);
});

test("Node's HTTP/2 client, with its small windows and frames, is understood", async () => {
  const { address } = await serve("unix", (stream) => {
    const counter = new Counter();
    stream.respond([
      [":status", "200"],
      ["content-type", "application/grpc"],
    ]);
    stream.write([pattern(MIB)]);
    counter.end = () => stream.end(new Map([["grpc-status", String(counter.sum)]]));
    return counter;
  });
  const { createConnection } = await import("node:net");
  const session = connectHttp2("http://localhost", { createConnection: () => createConnection(address.path ?? "") });
  cleanups.push(() => session.destroy());
  const request = session.request({ ":method": "POST", ":path": "/some/long/path", "x-some-header": "value" });
  const trailers = new Promise((resolve) => request.on("trailers", resolve));
  const chunks: Buffer[] = [];
  request.on("data", (chunk: Buffer) => chunks.push(chunk));
  request.end(pattern(3 * MIB));
  expect(await trailers).toMatchObject({ "grpc-status": String(sumOf(pattern(3 * MIB))) });
  expect(sumOf(...chunks)).toBe(sumOf(pattern(MIB)));
});

test("Node's HTTP/2 server, with its small windows and frames, is understood", async () => {
  const server = createHttp2Server();
  server.on("stream", (stream) => {
    stream.respond({ ":status": 200, "x-long": "v".repeat(200) });
    stream.pipe(stream);
  });
  const address = await listening(server, "unix");
  const counter = new Counter();
  const headers: (string | undefined)[] = [];
  counter.headers = (received?: ReadonlyMap<string, string>) => void headers.push(received?.get("x-long"));
  const { stream, closed, connection } = dial(address, counter);
  stream.write([pattern(MIB), pattern(MIB)]);
  stream.end();
  await counter.until(2 * MIB);
  expect(counter.sum).toBe(sumOf(pattern(MIB), pattern(MIB)));
  expect(headers).toEqual(["v".repeat(200)]);
  connection.close();
  await closed;
});

test("never sends beyond the peer's windows and frame size, however they change", async () => {
  const server = createServer();
  const address = await listening(server, "unix");
  const accepted = new Promise<RawPeer>((resolve) => {
    server.once("connection", (socket) => resolve(new RawPeer(socket, PREFACE.length)));
  });
  const { stream } = dial(address, new Counter());
  stream.write([pattern(400_000)]);
  const peer = await accepted;
  const dataBytes = (): number =>
    peer.frames.filter(({ type }) => type === H2Type.data).reduce((sum, { length }) => sum + length, 0);
  const settled = async (ping: number): Promise<void> => {
    // A ping's answer comes behind whatever was sent before it.
    const payload = Buffer.alloc(8, ping);
    peer.send(h2Frame(H2Type.ping, 0, 0, payload));
    await peer.frame((frame) => frame.type === H2Type.ping && frame.payload.equals(payload));
  };
  peer.send(settingsFrame([]));
  await settled(1);
  expect(dataBytes()).toBe(65_535);
  peer.send(settingsFrame([[H2Setting.initialWindow, 100_000]]));
  await settled(2);
  expect(dataBytes()).toBe(65_535);
  peer.send(h2Number(H2Type.windowUpdate, 0, 20_000));
  await settled(3);
  expect(dataBytes()).toBe(85_535);
  peer.send(settingsFrame([[H2Setting.initialWindow, 50_000]]), h2Number(H2Type.windowUpdate, 0, 1_000_000));
  await settled(4);
  expect(dataBytes()).toBe(85_535);
  peer.send(settingsFrame([[H2Setting.frameBytesMax, 40_000]]), h2Number(H2Type.windowUpdate, 1, 1_000_000));
  await settled(5);
  expect(dataBytes()).toBe(400_000);
  const sizes = peer.frames.filter(({ type }) => type === H2Type.data).map(({ length }) => length);
  expect(Math.max(...sizes.slice(0, 6))).toBe(16_384);
  expect(Math.max(...sizes)).toBe(40_000);
});

const PATH = encodeHeaders([[":path", "/"]]);
const OPEN = h2Frame(H2Type.headers, 0x4, 1, PATH);
const START = Buffer.concat([PREFACE, settingsFrame([])]);

test.each([
  ["no HTTP/2 preface", H2Error.protocol, [Buffer.from("GET / HTTP/1.1\r\nHost: x\r\n\r\n")]],
  ["no SETTINGS first", H2Error.protocol, [PREFACE, h2Frame(H2Type.ping, 0, 0, Buffer.alloc(8))]],
  ["a frame above the limit", H2Error.frameSize, [START, h2Header(2 ** 24 - 1, H2Type.data, 0, 1)]],
  ["a control frame above the limit", H2Error.frameSize, [START, h2Header(20_000, H2Type.headers, 0, 1)]],
  ["a ping of 9 bytes", H2Error.frameSize, [START, h2Frame(H2Type.ping, 0, 0, Buffer.alloc(9))]],
  ["payload on a stream that never was", H2Error.protocol, [START, h2Frame(H2Type.data, 0, 3, Buffer.alloc(3))]],
  ["payload on stream 0", H2Error.protocol, [START, h2Frame(H2Type.data, 0, 0, Buffer.alloc(3))]],
  ["a stream of an even number", H2Error.protocol, [START, h2Frame(H2Type.headers, 0x4, 2, Buffer.alloc(0))]],
  ["headers on stream 0", H2Error.protocol, [START, h2Frame(H2Type.headers, 0x4, 0, Buffer.alloc(0))]],
  ["a broken header block", H2Error.compression, [START, h2Frame(H2Type.headers, 0x4, 1, Buffer.from([0xff, 0xff]))]],
  ["a window update of nothing", H2Error.protocol, [START, h2Number(H2Type.windowUpdate, 0, 0)]],
  ["a window beyond its largest", H2Error.flowControl, [START, h2Number(H2Type.windowUpdate, 0, 2 ** 31 - 1)]],
  ["an initial window too large", H2Error.flowControl, [START, settingsFrame([[H2Setting.initialWindow, 2 ** 31]])]],
  ["a frame size too small", H2Error.protocol, [START, settingsFrame([[H2Setting.frameBytesMax, 100]])]],
  ["a ping on a stream", H2Error.protocol, [START, h2Frame(H2Type.ping, 0, 1, Buffer.alloc(8))]],
  ["a good-bye on a stream", H2Error.protocol, [START, h2Frame(H2Type.goAway, 0, 1, Buffer.alloc(8))]],
  ["a push", H2Error.protocol, [START, h2Frame(H2Type.pushPromise, 0, 1, Buffer.alloc(4))]],
  [
    "a frame inside a header block",
    H2Error.protocol,
    [START, h2Frame(H2Type.headers, 0, 1, Buffer.alloc(0)), h2Frame(H2Type.ping, 0, 0, Buffer.alloc(8))],
  ],
  ["a continuation of nothing", H2Error.protocol, [START, h2Frame(H2Type.continuation, 0, 1, Buffer.alloc(0))]],
  [
    "an endless header block",
    H2Error.enhanceYourCalm,
    [
      START,
      h2Frame(H2Type.headers, 0, 1, Buffer.alloc(0)),
      ...Array.from({ length: 3 }, () => h2Frame(H2Type.continuation, 0, 1, Buffer.alloc(8000))),
    ],
  ],
  ["more padding than frame", H2Error.protocol, [START, OPEN, h2Frame(H2Type.data, 0x8, 1, Buffer.from([9, 1]))]],
  [
    "payload behind the end",
    H2Error.streamClosed,
    [START, OPEN, h2Frame(H2Type.data, 0x1, 1, Buffer.alloc(1)), h2Frame(H2Type.data, 0, 1, Buffer.alloc(1))],
  ],
  [
    "headers behind the end",
    H2Error.streamClosed,
    [START, h2Frame(H2Type.headers, 0x5, 1, PATH), h2Frame(H2Type.headers, 0x5, 1, PATH)],
  ],
  [
    "a flood of empty payloads",
    H2Error.enhanceYourCalm,
    [START, OPEN, ...Array.from({ length: 1100 }, () => h2Frame(H2Type.data, 0, 1, Buffer.alloc(0)))],
  ],
  [
    "a flood of pings",
    H2Error.enhanceYourCalm,
    [START, ...Array.from({ length: 1100 }, () => h2Frame(H2Type.ping, 0, 0, Buffer.alloc(8)))],
  ],
  [
    "streams opened and reset",
    H2Error.enhanceYourCalm,
    [
      START,
      ...Array.from({ length: 600 }, (_, at) => [
        h2Frame(H2Type.headers, 0x4, at * 2 + 1, encodeHeaders([[":path", "/"]])),
        h2Number(H2Type.reset, at * 2 + 1, H2Error.cancel),
      ]).flat(),
    ],
  ],
] as const)("%s ends the connection with code %i", async (_name, code, bytes) => {
  const { address } = await serve("unix", () => new Counter());
  const peer = RawPeer.to(address);
  peer.send(...bytes);
  const goAway = await peer.frame(({ type }) => type === H2Type.goAway);
  expect(goAway.payload.readUInt32BE(4)).toBe(code);
  await peer.closed;
});

test("padding, priorities and frames of later versions change nothing; a stream too many is refused", async () => {
  const counter = new Counter();
  const { address } = await serve("unix", () => counter);
  const peer = RawPeer.to(address);
  const block = encodeHeaders([[":path", "/"]]);
  const padded = Buffer.concat([Buffer.from([2, 0, 0, 0, 0, 16]), block, Buffer.alloc(2)]);
  peer.send(
    START,
    h2Frame(H2Type.headers, 0x4 | 0x8 | 0x20, 1, padded),
    h2Frame(H2Type.priority, 0, 1, Buffer.alloc(5)),
  );
  peer.send(h2Frame(0xbe, 0xff, 1, Buffer.alloc(77)), h2Frame(H2Type.data, 0x8, 1, Buffer.from([2, 5, 6, 0, 0])));
  await counter.until(2);
  expect(counter.sum).toBe(sumOf(Uint8Array.of(5, 6)));
  for (let at = 1; at <= 64; at++) peer.send(h2Frame(H2Type.headers, 0x4, at * 2 + 1, block));
  const reset = await peer.frame(({ type }) => type === H2Type.reset);
  expect([reset.stream, reset.payload.readUInt32BE(0)]).toEqual([129, H2Error.refusedStream]);
});

test("a message half handed to the socket is not called done when its stream is reset, only once the socket let go", async () => {
  const written = Promise.withResolvers<void>();
  let done = false;
  const { address, connections } = await serve("unix", (stream) => {
    stream.respond([[":status", "200"]]);
    stream.write([new Uint8Array(8 * MIB)], () => {
      done = true;
      written.resolve();
    });
    return new Counter();
  });
  const peer = RawPeer.to(address);
  peer.socket.pause();
  // Window for one MiB: more than the kernel takes, less than the message.
  peer.send(START, settingsFrame([[H2Setting.initialWindow, MIB]]), h2Number(H2Type.windowUpdate, 0, 16 * MIB), OPEN);
  peer.send(h2Number(H2Type.reset, 1, H2Error.cancel), h2Frame(H2Type.ping, 0, 0, Buffer.alloc(8)));
  await new Promise((resolve) => setImmediate(resolve));
  while (connections.length === 0) await new Promise((resolve) => setImmediate(resolve));
  for (let turn = 0; turn < 100; turn++) await new Promise((resolve) => setImmediate(resolve));
  expect(done).toBe(false);
  peer.socket.resume();
  await written.promise;
});

test("a peer that breaks the protocol and reads nothing loses its connection all the same", async () => {
  const { address } = await serve("unix", (stream) => {
    stream.respond([[":status", "200"]]);
    stream.write([new Uint8Array(8 * MIB)]);
    return new Counter();
  });
  const peer = RawPeer.to(address);
  peer.socket.pause();
  peer.send(START, settingsFrame([[H2Setting.initialWindow, 16 * MIB]]), h2Number(H2Type.windowUpdate, 0, 16 * MIB));
  peer.send(OPEN, h2Frame(H2Type.ping, 0, 0, Buffer.alloc(9)));
  // Its own writing is refused once the server has closed.
  await new Promise<void>((resolve) => {
    const poke = (): boolean =>
      peer.socket.write(Buffer.alloc(1), (error) => (error ? resolve() : void setImmediate(poke)));
    poke();
  });
});

test("a peer that dies in the middle of a frame closes its streams", async () => {
  const counter = new Counter();
  const closed = Promise.withResolvers<void>();
  counter.close = closed.resolve;
  const { address } = await serve("tcp", () => counter);
  const peer = RawPeer.to(address);
  peer.send(START, OPEN, h2Header(1000, H2Type.data, 0, 1), Buffer.alloc(10));
  await counter.until(10);
  peer.socket.resetAndDestroy();
  await closed.promise;
});

test("any bytes in any pieces give frames or end the connection, and never throw", () => {
  const frame = fc
    .tuple(fc.integer({ min: 0, max: 10 }), fc.nat(255), fc.nat(4), fc.uint8Array({ maxLength: 60 }))
    .map(([type, flags, stream, payload]) => h2Frame(type, flags, stream, payload));
  fc.assert(
    fc.property(fc.array(frame, { maxLength: 30 }), fc.array(fc.integer({ min: 1, max: 50 })), (frames, cuts) => {
      const connection = new H2Connection({ role: "server", onStream: () => new Counter(), onClose: () => undefined });
      const bytes = Buffer.concat([START, OPEN, ...frames]);
      for (let at = 0, cut = 0; at < bytes.length; cut++) {
        const end = at + (cuts[cut % Math.max(1, cuts.length)] ?? bytes.length);
        connection.parser.push(bytes.subarray(at, end));
        at = end;
      }
    }),
    { numRuns: 500 },
  );
});

test("headers of a response and trailers are those that were sent", async () => {
  const { address } = await serve("tcp", (stream) => {
    stream.respond([[":status", "200"]]);
    stream.end(new Map([["grpc-message", "x".repeat(300)]]));
    return new Counter();
  });
  const peer = RawPeer.to(address);
  peer.send(START, OPEN);
  const decoder = new HpackDecoder();
  const last = await peer.frame(({ type, flags }) => type === H2Type.headers && (flags & 1) === 1);
  const first = peer.frames.find(({ type }) => type === H2Type.headers);
  expect([...decoder.decode(first?.payload ?? Buffer.alloc(0))]).toEqual([[":status", "200"]]);
  expect([...decoder.decode(last.payload)]).toEqual([["grpc-message", "x".repeat(300)]]);
});
