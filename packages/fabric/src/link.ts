// What both ends of the exchange's link agree on: paths, content type, and how a frame becomes one gRPC message. Knows bytes, not
// frames' meaning.
import { GRPC_PREFIX_BYTES } from "./frame-reader.ts";
import { HEADER_BYTES, encodeHeader } from "./frame.ts";
import type { FrameHeader } from "./frame.ts";

export const EXCHANGE_PATH = "/moevie.v1.ExpertService/Exchange";
export const HEALTH_CHECK_PATH = "/grpc.health.v1.Health/Check";
export const GRPC_CONTENT_TYPE = "application/grpc";

export const RESPONSE_HEADERS = [
  [":status", "200"],
  ["content-type", GRPC_CONTENT_TYPE],
] as const;

/** Trailers that end a gRPC call. */
export function grpcTrailers(code: number, message: string): ReadonlyMap<string, string> {
  return new Map([
    ["grpc-status", String(code)],
    // What clients read back with decodeURI: escapes of commas and colons they would leave as they are.
    ["grpc-message", encodeURI(message)],
  ]);
}

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
