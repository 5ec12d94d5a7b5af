// The bounds of one HTTP/2 connection of the exchange, and the greeting that tells the peer of them.
import { limit } from "@moevie/contracts";
import { H2Setting, H2Type, H2_WINDOW_BYTES, PREFACE, h2Number, settingsFrame } from "./h2-frame.ts";

/** Window of every stream and of the connection, and the largest frame this end takes. */
export const WINDOW_BYTES = limit("frameBytesMax");
export const FRAME_BYTES_MAX = 1_048_576;
export const STREAMS_MAX = 64;
/** Frames that cost an answer or a stream, in a row of seconds. */
export const COSTLY_FRAMES_MAX = 1000;
export const COSTLY_FRAMES_MS = 10_000;
/** What may wait for one peer: all the answers its credit can ask for, and then some. */
export const QUEUED_BYTES_MAX = limit("shardCreditBytes") + 4 * limit("frameBytesMax");
/** From the connection to the peer's SETTINGS. */
export const HANDSHAKE_MS_MAX = 10_000;
/** For the good-bye to go out. */
export const GO_AWAY_MS_MAX = 1_000;
export const PING_BYTES = 8;

/** What an end sends first. */
export function greeting(role: "client" | "server"): Buffer {
  return Buffer.concat([
    role === "client" ? PREFACE : Buffer.alloc(0),
    settingsFrame([
      [H2Setting.enablePush, 0],
      [H2Setting.concurrentStreamsMax, STREAMS_MAX],
      [H2Setting.initialWindow, WINDOW_BYTES],
      [H2Setting.frameBytesMax, FRAME_BYTES_MAX],
    ]),
    h2Number(H2Type.windowUpdate, 0, WINDOW_BYTES - H2_WINDOW_BYTES),
  ]);
}
