// Frames of HTTP/2 (RFC 9113) as far as the link needs them: header, settings, numbers. Pure.

export const PREFACE = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "latin1");
export const H2_HEADER_BYTES = 9;

export const H2Type = {
  data: 0,
  headers: 1,
  priority: 2,
  reset: 3,
  settings: 4,
  pushPromise: 5,
  ping: 6,
  goAway: 7,
  windowUpdate: 8,
  continuation: 9,
} as const;

export const H2Flag = { endStream: 0x1, ack: 0x1, endHeaders: 0x4, padded: 0x8, priority: 0x20 } as const;

export const H2Error = {
  none: 0,
  protocol: 1,
  flowControl: 3,
  streamClosed: 5,
  frameSize: 6,
  refusedStream: 7,
  cancel: 8,
  compression: 9,
  enhanceYourCalm: 11,
} as const;
export type H2Error = (typeof H2Error)[keyof typeof H2Error];

export const H2Setting = {
  enablePush: 2,
  concurrentStreamsMax: 3,
  initialWindow: 4,
  frameBytesMax: 5,
} as const;

/** Until a peer says otherwise (RFC 9113, 6.5.2). */
export const H2_WINDOW_BYTES = 65_535;
export const H2_FRAME_BYTES = 16_384;
export const H2_WINDOW_BYTES_MAX = 2 ** 31 - 1;

export interface H2Header {
  readonly length: number;
  readonly type: number;
  readonly flags: number;
  readonly stream: number;
}

export function readH2Header(bytes: Buffer): H2Header {
  return {
    length: bytes.readUIntBE(0, 3),
    type: bytes[3] as number,
    flags: bytes[4] as number,
    stream: bytes.readUInt32BE(5) & 0x7fff_ffff,
  };
}

/** A frame's header. */
export function h2Header(length: number, type: number, flags: number, stream: number): Buffer {
  const bytes = Buffer.allocUnsafe(H2_HEADER_BYTES);
  bytes.writeUIntBE(length, 0, 3);
  bytes[3] = type;
  bytes[4] = flags;
  bytes.writeUInt32BE(stream, 5);
  return bytes;
}

/** A whole frame with a small payload. */
export function h2Frame(type: number, flags: number, stream: number, payload: Uint8Array): Buffer {
  return Buffer.concat([h2Header(payload.length, type, flags, stream), payload]);
}

/** A frame whose payload is one u32: WINDOW_UPDATE and RST_STREAM. */
export function h2Number(type: number, stream: number, value: number): Buffer {
  const payload = Buffer.allocUnsafe(4);
  payload.writeUInt32BE(value, 0);
  return h2Frame(type, 0, stream, payload);
}

export function settingsFrame(settings: readonly (readonly [id: number, value: number])[]): Buffer {
  const payload = Buffer.allocUnsafe(settings.length * 6);
  settings.forEach(([id, value], index) => {
    payload.writeUInt16BE(id, index * 6);
    payload.writeUInt32BE(value, index * 6 + 2);
  });
  return h2Frame(H2Type.settings, 0, 0, payload);
}

/** The (identifier, value) pairs of a SETTINGS payload whose length is a multiple of 6. */
export function* readSettings(payload: Buffer): Generator<readonly [id: number, value: number]> {
  for (let at = 0; at < payload.length; at += 6) yield [payload.readUInt16BE(at), payload.readUInt32BE(at + 2)];
}

/** GOAWAY: the last stream of the peer's that was taken, why, and words for whoever reads a capture. */
export function goAwayFrame(lastStream: number, code: H2Error, message: string): Buffer {
  const payload = Buffer.alloc(8 + Buffer.byteLength(message));
  payload.writeUInt32BE(lastStream, 0);
  payload.writeUInt32BE(code, 4);
  payload.write(message, 8);
  return h2Frame(H2Type.goAway, 0, 0, payload);
}
