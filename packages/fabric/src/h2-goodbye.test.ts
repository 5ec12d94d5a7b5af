// How an HTTP/2 link ends: good-byes are said and heard whatever is half sent, and a peer that fell silent is noticed.
import { createServer } from "node:net";
import { afterEach, expect, test } from "vitest";
import { H2Error, H2Setting, H2Type, PREFACE, goAwayFrame, h2Frame, h2Number, settingsFrame } from "./h2-frame.ts";
import { Counter, RawPeer, cleanUp, cleanups, dial, listening, serve } from "./h2-link.fixture.ts";
import { H2Connection } from "./h2-connection.ts";
import { openSocket, type ByteAddress } from "./byte-socket.ts";
import { encodeHeaders } from "./hpack.ts";

afterEach(cleanUp);

const MIB = 1_048_576;
const START = Buffer.concat([PREFACE, settingsFrame([])]);
const OPEN = h2Frame(H2Type.headers, 0x4, 1, encodeHeaders([[":path", "/"]]));
const SILENCE_MS = 200;

/** A server made by hand; resolves with its end of the first connection. */
async function rawServer(): Promise<{ address: ByteAddress; peer: Promise<RawPeer> }> {
  const peer = Promise.withResolvers<RawPeer>();
  const server = createServer((socket) => {
    const raw = new RawPeer(socket, PREFACE.length);
    raw.send(settingsFrame([]));
    peer.resolve(raw);
  });
  return { address: await listening(server, "unix"), peer: peer.promise };
}

test("a good-bye reaches the peer though a message is half sent and the kernel takes no more", async () => {
  const written = Promise.withResolvers<void>();
  const { address, connections } = await serve("unix", (stream) => {
    stream.respond([[":status", "200"]]);
    stream.write([new Uint8Array(8 * MIB)], () => undefined);
    setImmediate(written.resolve);
    return new Counter();
  });
  const peer = RawPeer.to(address);
  peer.socket.pause();
  const wide = settingsFrame([[H2Setting.initialWindow, MIB]]);
  peer.send(START, wide, h2Number(H2Type.windowUpdate, 0, MIB), OPEN);
  await written.promise;
  connections[0]?.close();
  await new Promise((resolve) => setImmediate(resolve));
  peer.socket.resume();
  const { payload } = await peer.frame(({ type }) => type === H2Type.goAway);
  expect([payload.readUInt32BE(0), payload.readUInt32BE(4)]).toEqual([1, H2Error.none]);
  await peer.closed;
});

test("a peer that is sent more than it may leave unread is told so before it is cut off", async () => {
  const { address } = await serve("unix", (stream) => {
    stream.respond([[":status", "200"]]);
    const part = new Uint8Array(64 * MIB);
    for (let times = 0; times < 8; times++) stream.write([part]);
    return new Counter();
  });
  const peer = RawPeer.to(address);
  peer.send(START, OPEN);
  const { payload } = await peer.frame(({ type }) => type === H2Type.goAway);
  expect(payload.readUInt32BE(4)).toBe(H2Error.enhanceYourCalm);
  await peer.closed;
});

test("streams that a peer who leaves never took end at once, and with the last the connection", async () => {
  const { address, peer } = await rawServer();
  const counter = new Counter();
  const { closed } = dial(address, counter);
  (await peer).send(goAwayFrame(0, H2Error.none, "closing"));
  await closed;
  expect(counter.closed).toBe(true);
});

test("streams that a peer who leaves did take are served to their end", async () => {
  const { address, peer } = await rawServer();
  const counter = new Counter();
  const { stream, closed } = dial(address, counter);
  const raw = await peer;
  await raw.frame(({ type }) => type === H2Type.headers);
  raw.send(goAwayFrame(1, H2Error.none, ""), h2Frame(H2Type.data, 0, 1, Buffer.from([1, 2, 3])));
  await counter.until(3);
  expect(counter.closed).toBe(false);
  stream.end();
  raw.send(h2Frame(H2Type.data, 1, 1, Buffer.alloc(0)));
  await closed;
});

/** A client that takes `SILENCE_MS` for too long. */
function impatient(address: ByteAddress): Promise<void> {
  return new Promise((resolve) => {
    const connection = new H2Connection({ role: "client", onClose: resolve, silenceMs: SILENCE_MS });
    connection.start(openSocket(address, connection.parser));
    cleanups.push(() => connection.destroy());
    connection.request([[":path", "/"]], new Counter());
  });
}

test("a peer that answers nothing more is asked once and then given up", async () => {
  const { address, peer } = await rawServer();
  const closed = impatient(address);
  const ping = await (await peer).frame(({ type }) => type === H2Type.ping);
  expect(ping.payload).toHaveLength(8);
  await closed;
});

test("a peer that answers pings is kept, however little it has to say", async () => {
  const { address, peer } = await rawServer();
  let open = true;
  void impatient(address).then(() => (open = false));
  const raw = await peer;
  for (let times = 1; times <= 4; times++) {
    const pings = raw.frames.filter(({ type }) => type === H2Type.ping).length;
    const { payload } = await raw.frame(({ type }) => type === H2Type.ping);
    raw.frames.length = 0;
    raw.send(h2Frame(H2Type.ping, 1, 0, payload), h2Number(H2Type.windowUpdate, 0, 1));
    expect(pings).toBeLessThanOrEqual(1);
  }
  expect(open).toBe(true);
});
