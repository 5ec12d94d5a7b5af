// A socket that reads straight into the memory its bytes are meant for, where Node allows it. Knows bytes only.
import { Socket, connect } from "node:net";

/** Who takes the bytes. */
export interface ByteSink {
  /** Where the next bytes should go; at least one byte long. */
  target(): Uint8Array;
  /** `bytes` bytes were put at the start of the last target. */
  advance(bytes: number): void;
  /** Bytes that came in memory of their own: what happens where a socket cannot read into a target. */
  push(chunk: Uint8Array): void;
}

export interface ByteAddress {
  readonly path?: string;
  readonly host?: string;
  readonly port?: number;
}

const KEEP_ALIVE_MS = 10_000;
/** Node's own field for what a socket stands on. */
const HANDLE = "_handle";

/** Opens a connection; errors and close are events of the socket. */
export function openSocket({ path, host, port }: ByteAddress, sink: ByteSink): Socket {
  const onread = readInto(sink);
  const socket =
    path === undefined ? connect({ host: host ?? "127.0.0.1", port: port ?? 0, onread }) : connect({ path, onread });
  return tune(socket);
}

/**
 * Takes over a socket that a server accepted with `pauseOnConnect`. Node has no public way to read an accepted socket into
 * given memory, so its handle is given to a new socket; where there is no handle to take, chunks are pushed.
 */
export function adoptSocket(accepted: Socket, sink: ByteSink): Socket {
  const holder = accepted as unknown as Record<string, object | null | undefined>;
  const handle = holder[HANDLE];
  if (handle === null || handle === undefined) {
    accepted.on("data", (chunk: Buffer) => sink.push(chunk));
    accepted.resume();
    return tune(accepted);
  }
  holder[HANDLE] = null;
  const socket = new Socket({ handle, onread: readInto(sink) } as object);
  // The server counts the accepted socket until that closes.
  socket.on("close", () => accepted.destroy());
  socket.resume();
  return tune(socket);
}

function readInto(sink: ByteSink): { buffer: () => Uint8Array; callback: (bytes: number) => boolean } {
  return {
    buffer: () => sink.target(),
    callback: (bytes) => {
      sink.advance(bytes);
      return true;
    },
  };
}

function tune(socket: Socket): Socket {
  socket.setNoDelay(true);
  socket.setKeepAlive(true, KEEP_ALIVE_MS);
  return socket;
}
