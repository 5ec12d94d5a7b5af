// The HTTP/2 link under the exchange: one gRPC-compatible method on node:http2, with windows, frame size and paths set the
// same on both sides (docs/decisions/exchange-transport.md says why not grpc-js). Knows bytes, not frames' meaning.
import { connect as connectSocket } from "node:net";
import type { Socket } from "node:net";
import type { Http2Stream, Settings } from "node:http2";
import { limit } from "@moevie/contracts";
import { GRPC_PREFIX_BYTES } from "./frame-reader.ts";
import { HEADER_BYTES, encodeHeader } from "./frame.ts";
import type { FrameHeader } from "./frame.ts";

export const EXCHANGE_PATH = "/moevie.v1.ExpertService/Exchange";
export const HEALTH_CHECK_PATH = "/grpc.health.v1.Health/Check";
export const GRPC_CONTENT_TYPE = "application/grpc";

/** Stream and connection window, and a frame that holds a whole dispatch of usual size. */
export const WINDOW_BYTES = limit("frameBytesMax");
export const LINK_SETTINGS: Settings = { initialWindowSize: WINDOW_BYTES, maxFrameSize: 1_048_576, enablePush: false };
/** What one session may buffer, in the megabytes node:http2 counts in: credits bound it far below. */
export const SESSION_MEMORY_MB_MAX = 1024;

/** Bytes in front of a body so that rows lie on an 8-byte boundary of the buffer: 3 unused, prefix, header. */
export const BODY_OFFSET = 112;
const FRAME_OFFSET = BODY_OFFSET - HEADER_BYTES - GRPC_PREFIX_BYTES;

/** Writes prefix and header in front of a body of `header.bodyBytes` at BODY_OFFSET; returns where the message starts. */
export function writeHead(header: FrameHeader, target: Buffer): number {
  target[FRAME_OFFSET] = 0;
  target.writeUInt32BE(HEADER_BYTES + header.bodyBytes, FRAME_OFFSET + 1);
  encodeHeader(header, target, FRAME_OFFSET + GRPC_PREFIX_BYTES);
  return FRAME_OFFSET;
}

/** A whole message for a small body. */
export function smallMessage(header: FrameHeader, body: Uint8Array = new Uint8Array(0)): Buffer {
  const message = Buffer.allocUnsafe(BODY_OFFSET + body.length);
  const start = writeHead({ ...header, bodyBytes: body.length }, message);
  message.set(body, BODY_OFFSET);
  return message.subarray(start);
}

/** Writes to a stream that may be gone: then nothing happens, its owner hears of it by the close event. */
export function writeTo(stream: Http2Stream, bytes: Uint8Array, done?: () => void): void {
  if (stream.destroyed || stream.writableEnded) done?.();
  else stream.write(bytes, () => done?.());
}

export interface ListenTarget {
  readonly path?: string;
  readonly host?: string;
  readonly port?: number;
}

/** Opens the socket of an address in the forms `unix:PATH` and `HOST:PORT`. */
export function openSocket(target: ListenTarget): Socket {
  if (target.path !== undefined) return connectSocket({ path: target.path });
  return connectSocket({ host: target.host ?? "127.0.0.1", port: target.port ?? 0, noDelay: true });
}
