// What a finished clip really is, read from the file with FFmpeg: facts, and every frame as RGB. For tests alone; it shares no
// code with the decoder, so that it can disagree with it.
import { readFile } from "node:fs/promises";
import { AVMEDIA_TYPE_VIDEO, AV_LOG_FATAL, AV_PIX_FMT_RGB24, type AVPixelFormat } from "node-av/constants";
import {
  Codec,
  CodecContext,
  Filter,
  FilterGraph,
  FilterInOut,
  FormatContext,
  Frame,
  Log,
  Packet,
  avGetCodecName,
  avGetPixFmtName,
  type FilterContext,
  type Stream,
} from "node-av/lib";

export interface ProbedClip {
  readonly codec: string;
  /** H.264 profile number: 100 is High. */
  readonly profile: number;
  readonly pixelFormat: string;
  readonly width: number;
  readonly height: number;
  readonly fps: number;
  readonly frameCount: number;
  /** Frame numbers of the keyframes. */
  readonly keyframes: readonly number[];
  readonly durationSeconds: number;
  /** FFmpeg's numbers: 1 is BT.709 in the first three, and the limited range in the last. */
  readonly colour: {
    readonly primaries: number;
    readonly transfer: number;
    readonly matrix: number;
    readonly range: number;
  };
  /** What the file says of itself; "" when nothing. */
  readonly comment: string;
  /** The index lies before the pictures. */
  readonly faststart: boolean;
}

/** What every browser plays, whatever its size and rate, and starts playing before it has all of it. */
export const PLAYS_ANYWHERE = {
  codec: "h264",
  profile: 100,
  pixelFormat: "yuv420p",
  colour: { primaries: 1, transfer: 1, matrix: 1, range: 1 },
  faststart: true,
} as const satisfies Partial<ProbedClip>;

Log.setLevel(AV_LOG_FATAL);

function checked(code: number, what: string): number {
  if (code < 0) throw new Error(`FFmpeg: ${what}: ${code}`);
  return code;
}

async function withPictures<T>(path: string, work: (format: FormatContext, stream: Stream) => Promise<T>): Promise<T> {
  const format = new FormatContext();
  checked(await format.openInput(path), `opening ${path}`);
  try {
    checked(await format.findStreamInfo(null), "reading the streams");
    const stream = format.streams[checked(format.findBestStream(AVMEDIA_TYPE_VIDEO), "finding the pictures")];
    if (stream === undefined) throw new Error("no stream");
    return await work(format, stream);
  } finally {
    await format.closeInput();
  }
}

/** Names of the top-level boxes of an MP4, in order. */
async function topLevelBoxes(path: string): Promise<string[]> {
  const bytes = await readFile(path);
  const names: string[] = [];
  for (let at = 0; at + 8 <= bytes.length;) {
    const size = bytes.readUInt32BE(at);
    names.push(bytes.toString("latin1", at + 4, at + 8));
    at += size === 1 ? Number(bytes.readBigUInt64BE(at + 8)) : size === 0 ? bytes.length : size;
  }
  return names;
}

/** The facts of the clip at `path`. */
export async function probeClip(path: string): Promise<ProbedClip> {
  const boxes = await topLevelBoxes(path);
  return withPictures(path, async (format, stream) => {
    using packet = new Packet();
    packet.alloc();
    const packets: { pts: bigint; key: boolean }[] = [];
    while ((await format.readFrame(packet)) >= 0) {
      if (packet.streamIndex === stream.index) packets.push({ pts: packet.pts, key: packet.isKeyframe });
      packet.unref();
    }
    packets.sort((a, b) => Number(a.pts - b.pts));
    const { codecpar: parameters, timeBase, avgFrameRate } = stream;
    return {
      codec: avGetCodecName(parameters.codecId) ?? "unknown",
      profile: parameters.profile,
      pixelFormat: avGetPixFmtName(parameters.format as AVPixelFormat) ?? "unknown",
      width: parameters.width,
      height: parameters.height,
      fps: avgFrameRate.num / avgFrameRate.den,
      frameCount: packets.length,
      keyframes: packets.flatMap(({ key }, number) => (key ? [number] : [])),
      durationSeconds: (Number(stream.duration) * timeBase.num) / timeBase.den,
      colour: {
        primaries: parameters.colorPrimaries,
        transfer: parameters.colorTrc,
        matrix: parameters.colorSpace,
        range: parameters.colorRange,
      },
      comment: format.metadata?.get("comment") ?? "",
      faststart: boxes.indexOf("moov") >= 0 && boxes.indexOf("moov") < boxes.indexOf("mdat"),
    };
  });
}

/** Every frame of the clip as RGB bytes [height, width, 3], scaled to the size given. The file's own colour tags rule. */
export async function readFrames(
  path: string,
  size: { readonly width: number; readonly height: number },
): Promise<Uint8Array[]> {
  return withPictures(path, async (format, stream) => {
    using codec = new CodecContext();
    const decoder = Codec.findDecoder(stream.codecpar.codecId);
    codec.allocContext3(decoder);
    checked(codec.parametersToContext(stream.codecpar), "setting up the decoder");
    checked(await codec.open2(decoder), "opening the decoder");
    const { graph, source, sink } = await rgbFilter(stream, size);
    using packet = new Packet();
    using frame = new Frame();
    packet.alloc();
    frame.alloc();
    const pictures: Uint8Array[] = [];
    const drain = async (): Promise<void> => {
      while ((await codec.receiveFrame(frame)) >= 0) {
        checked(await source.buffersrcAddFrame(frame), "filtering");
        while ((await sink.buffersinkGetFrame(frame)) >= 0) {
          pictures.push(packed(frame, size));
          frame.unref();
        }
      }
    };
    while ((await format.readFrame(packet)) >= 0) {
      if (packet.streamIndex === stream.index) checked(await codec.sendPacket(packet), "decoding");
      packet.unref();
      await drain();
    }
    checked(await codec.sendPacket(null), "ending the decoder");
    await drain();
    graph.free();
    return pictures;
  });
}

function packed(frame: Frame, { width, height }: { readonly width: number; readonly height: number }): Uint8Array {
  const bytes = frame.toBuffer();
  const out = new Uint8Array(width * height * 3);
  const stride = bytes.length / height;
  for (let row = 0; row < height; row++)
    out.set(bytes.subarray(row * stride, row * stride + width * 3), row * width * 3);
  return out;
}

async function rgbFilter(
  stream: Stream,
  size: { readonly width: number; readonly height: number },
): Promise<{ graph: FilterGraph; source: FilterContext; sink: FilterContext }> {
  const { codecpar: parameters, timeBase } = stream;
  const graph = new FilterGraph();
  graph.alloc();
  const [buffer, buffersink] = [Filter.getByName("buffer"), Filter.getByName("buffersink")];
  if (buffer === null || buffersink === null) throw new Error("FFmpeg without buffers");
  const input = `video_size=${parameters.width}x${parameters.height}:pix_fmt=${avGetPixFmtName(parameters.format as AVPixelFormat)}:time_base=${timeBase.num}/${timeBase.den}:colorspace=${parameters.colorSpace}:range=${parameters.colorRange}`;
  const source = graph.createFilter(buffer, "in", input);
  const sink = graph.createFilter(buffersink, "out");
  if (source === null || sink === null) throw new Error(`FFmpeg refused ${input}`);
  using sourceEnd = new FilterInOut();
  using sinkEnd = new FilterInOut();
  for (const [end, name, context] of [
    [sourceEnd, "in", source],
    [sinkEnd, "out", sink],
  ] as const) {
    end.alloc();
    end.name = name;
    end.filterCtx = context;
    end.padIdx = 0;
  }
  const chain = `scale=${size.width}:${size.height}:flags=area+accurate_rnd+full_chroma_int,format=${avGetPixFmtName(AV_PIX_FMT_RGB24)}`;
  checked(graph.parsePtr(chain, sinkEnd, sourceEnd), "reading the filters");
  checked(await graph.config(), "setting up the filters");
  return { graph, source, sink };
}
