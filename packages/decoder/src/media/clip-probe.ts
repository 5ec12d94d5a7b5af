// The facts of a finished clip, read back from the file itself. Never decodes.
import { AVMEDIA_TYPE_VIDEO } from "node-av/constants";
import { FormatContext, Packet, avGetCodecName, avGetPixFmtName } from "node-av/lib";
import type { AVPixelFormat } from "node-av/constants";
import { checked } from "./native.ts";

export interface ProbedClip {
  readonly codec: string;
  readonly pixelFormat: string;
  readonly width: number;
  readonly height: number;
  readonly fps: number;
  readonly frameCount: number;
}

/** Reads every packet header of the MP4 at `path`. Throws INTERNAL when it is no whole clip. */
export async function probeFinishedClip(path: string): Promise<ProbedClip> {
  const format = new FormatContext();
  using packet = new Packet();
  packet.alloc();
  try {
    checked(await format.openInput(path), "reading the finished file");
    checked(await format.findStreamInfo(null), "reading the finished streams");
    const index = checked(format.findBestStream(AVMEDIA_TYPE_VIDEO), "finding the finished picture stream");
    const stream = format.streams[index];
    if (stream === undefined) throw new Error("FFmpeg named a stream it does not have");
    let frameCount = 0;
    while ((await format.readFrame(packet)) >= 0) {
      if (packet.streamIndex === index) frameCount++;
      packet.unref();
    }
    const { codecId, format: pixelFormat, width, height } = stream.codecpar;
    return {
      codec: avGetCodecName(codecId) ?? "unknown",
      pixelFormat: avGetPixFmtName(pixelFormat as AVPixelFormat) ?? "unknown",
      width,
      height,
      fps: stream.avgFrameRate.num / stream.avgFrameRate.den,
      frameCount,
    };
  } finally {
    await format.closeInput();
  }
}
