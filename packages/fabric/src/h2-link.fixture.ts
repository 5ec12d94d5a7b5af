// Two ends of an HTTP/2 link over a real socket, and a peer that writes whatever bytes a test wants. Fixture only.
import { mkdtempSync, rmSync } from "node:fs";
import { connect, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { adoptSocket, openSocket, type ByteAddress } from "./byte-socket.ts";
import { H2Connection } from "./h2-connection.ts";
import type { H2Stream, H2StreamSink } from "./h2-stream.ts";
import { H2_HEADER_BYTES, readH2Header, type H2Header } from "./h2-frame.ts";

export const cleanups: (() => Promise<void> | void)[] = [];

export async function cleanUp(): Promise<void> {
  for (const cleanup of cleanups.splice(0).toReversed()) await cleanup();
}

export async function listening(server: Server, transport: "unix" | "tcp"): Promise<ByteAddress> {
  const folder = mkdtempSync(join(tmpdir(), "moevie-h2-"));
  cleanups.push(() => rmSync(folder, { recursive: true, force: true }));
  const target = transport === "unix" ? { path: join(folder, "link") } : { port: 0, host: "127.0.0.1" };
  await new Promise<void>((resolve) => {
    server.listen(target, resolve);
  });
  cleanups.push(() => new Promise<void>((resolve) => void server.close(() => resolve())));
  const bound = server.address();
  return typeof bound === "object" && bound !== null ? { port: bound.port, host: "127.0.0.1" } : target;
}

/** A server whose streams `onStream` takes. */
export async function serve(
  transport: "unix" | "tcp",
  onStream: (stream: H2Stream) => H2StreamSink,
): Promise<{ address: ByteAddress; connections: H2Connection[] }> {
  const connections: H2Connection[] = [];
  const server = createServer({ pauseOnConnect: true }, (accepted) => {
    const connection = new H2Connection({ role: "server", onStream, onClose: () => undefined });
    connections.push(connection);
    connection.start(adoptSocket(accepted, connection.parser));
  });
  const address = await listening(server, transport);
  cleanups.push(() => connections.forEach((connection) => connection.destroy()));
  return { address, connections };
}

/** A stream to `address`; `closed` resolves when the connection is gone. */
export function dial(
  address: ByteAddress,
  sink: H2StreamSink,
): { stream: H2Stream; connection: H2Connection; closed: Promise<void> } {
  const closed = Promise.withResolvers<void>();
  const connection = new H2Connection({ role: "client", onClose: () => closed.resolve() });
  connection.start(openSocket(address, connection.parser));
  cleanups.push(() => connection.destroy());
  const headers = { ":method": "POST", ":scheme": "http", ":path": "/", ":authority": "localhost" };
  const stream = connection.request(Object.entries(headers), sink);
  return { stream, connection, closed: closed.promise };
}

/** Counts and sums what comes; `until` resolves once that many bytes are in. */
export class Counter implements H2StreamSink {
  bytes = 0;
  sum = 0;
  pushed = 0;
  closed = false;
  ended = false;
  readonly #memory = new Uint8Array(65_536);
  readonly #waits: { readonly bytes: number; readonly resolve: () => void }[] = [];

  target(): Uint8Array {
    return this.#memory;
  }

  advance(bytes: number): void {
    for (let at = 0; at < bytes; at++) this.sum = (this.sum * 31 + (this.#memory[at] as number)) >>> 0;
    this.bytes += bytes;
    for (const wait of this.#waits) if (this.bytes >= wait.bytes) wait.resolve();
  }

  refuse(): void {
    this.closed = true;
  }

  headers(): void {
    // Nothing in them matters here.
  }

  end(): void {
    this.ended = true;
  }

  close(): void {
    this.closed = true;
  }

  until(bytes: number): Promise<void> {
    return new Promise((resolve) => {
      this.#waits.push({ bytes, resolve });
      if (this.bytes >= bytes) resolve();
    });
  }
}

/** A peer made by hand: sends bytes, keeps the frames it gets. */
export class RawPeer {
  readonly frames: (H2Header & { readonly payload: Buffer })[] = [];
  readonly socket: Socket;
  readonly closed: Promise<void>;
  #rest = Buffer.alloc(0);
  #changed = Promise.withResolvers<void>();

  constructor(socket: Socket, prefaceBytes = 0) {
    this.socket = socket;
    let skip = prefaceBytes;
    socket.on("data", (chunk: Buffer) => {
      const dropped = Math.min(skip, chunk.length);
      skip -= dropped;
      this.#take(chunk.subarray(dropped));
    });
    socket.on("error", () => socket.destroy());
    this.closed = new Promise((resolve) => {
      socket.on("close", () => resolve());
    });
    cleanups.push(() => {
      socket.destroy();
    });
  }

  static to(address: ByteAddress): RawPeer {
    return new RawPeer(address.path === undefined ? connect(address as { port: number }) : connect(address.path));
  }

  send(...parts: readonly Uint8Array[]): void {
    this.socket.write(Buffer.concat(parts));
  }

  /** The first frame that `holds`, once it is there. */
  async frame(holds: (frame: H2Header & { payload: Buffer }) => boolean): Promise<H2Header & { payload: Buffer }> {
    for (;;) {
      const found = this.frames.find(holds);
      if (found !== undefined) return found;
      await this.#changed.promise;
    }
  }

  #take(chunk: Buffer): void {
    this.#rest = Buffer.concat([this.#rest, chunk]);
    for (;;) {
      if (this.#rest.length < H2_HEADER_BYTES) break;
      const header = readH2Header(this.#rest);
      const end = H2_HEADER_BYTES + header.length;
      if (this.#rest.length < end) break;
      this.frames.push({ ...header, payload: this.#rest.subarray(H2_HEADER_BYTES, end) });
      this.#rest = this.#rest.subarray(end);
    }
    const { resolve } = this.#changed;
    this.#changed = Promise.withResolvers<void>();
    resolve();
  }
}
