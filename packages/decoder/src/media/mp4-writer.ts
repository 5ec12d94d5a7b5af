// H.264 in MP4: frames in, a finished file out, its index in front. Owns native memory until `close`.
import {
  AVCHROMA_LOC_LEFT,
  AVCOL_PRI_BT709,
  AVCOL_RANGE_MPEG,
  AVCOL_SPC_BT709,
  AVCOL_TRC_BT709,
  AVERROR_EAGAIN,
  AVERROR_EOF,
  AV_CODEC_FLAG_GLOBAL_HEADER,
  AV_PICTURE_TYPE_NONE,
  AV_PIX_FMT_YUV420P,
} from "node-av/constants";
import { CodecContext, Dictionary, FormatContext, Packet, Rational, type Frame, type Stream } from "node-av/lib";
import type { PictureShape } from "./filter-chain.ts";
import { checked, h264Encoder, mediaError } from "./native.ts";

/** Measured on the default clip: a third of the next preset's size for a third more time, and slower ones gain nothing. */
const PRESET = "veryfast";
const CRF = 20;
const KEYFRAME_SECONDS = 2;

export class Mp4Writer {
  readonly #codec: CodecContext;
  readonly #format: FormatContext;
  readonly #stream: Stream;
  readonly #packet = new Packet();
  readonly #fps: number;
  #written = 0;

  private constructor(codec: CodecContext, format: FormatContext, stream: Stream, fps: number) {
    this.#codec = codec;
    this.#format = format;
    this.#stream = stream;
    this.#fps = fps;
    this.#packet.alloc();
  }

  /** Creates the file at `path`. Throws UNSUPPORTED, DISK_FULL, INTERNAL. */
  static async open(path: string, shape: PictureShape, threads: number): Promise<Mp4Writer> {
    const codec = await openEncoder(shape, threads);
    const format = new FormatContext();
    try {
      checked(format.allocOutputContext2(null, "mp4", path), "making the MP4");
      checked(await format.openOutput(), "opening the file");
      const stream = format.newStream(null);
      stream.timeBase = new Rational(1, shape.fps);
      stream.avgFrameRate = new Rational(shape.fps, 1);
      checked(stream.codecpar.fromContext(codec), "describing the stream");
      using options = Dictionary.fromObject({ movflags: "+faststart" });
      checked(await format.writeHeader(options), "writing the header");
      return new Mp4Writer(codec, format, stream, shape.fps);
    } catch (thrown) {
      codec.freeContext();
      await format.closeOutput();
      format.freeContext();
      throw thrown;
    }
  }

  /** Frames given to the encoder so far. */
  get frames(): number {
    return this.#written;
  }

  /** Takes the next frame; it is shown for one frame time, whatever its own time says. */
  async write(frame: Frame): Promise<void> {
    frame.pts = BigInt(this.#written++);
    frame.timeBase = new Rational(1, this.#fps);
    frame.pictType = AV_PICTURE_TYPE_NONE;
    checked(await this.#codec.sendFrame(frame), "encoding a frame");
    await this.#drain();
  }

  /** Ends the stream and moves the index to the front. */
  async finish(): Promise<void> {
    checked(await this.#codec.sendFrame(null), "ending the encoder");
    await this.#drain();
    checked(await this.#format.writeTrailer(), "writing the index");
  }

  async close(): Promise<void> {
    this.#packet.free();
    this.#codec.freeContext();
    await this.#format.closeOutput();
    this.#format.freeContext();
  }

  async #drain(): Promise<void> {
    for (;;) {
      const code = await this.#codec.receivePacket(this.#packet);
      if (code === AVERROR_EAGAIN || code === AVERROR_EOF) return;
      if (code < 0) throw mediaError(code, "taking a packet");
      this.#packet.streamIndex = this.#stream.index;
      this.#packet.duration = 1n;
      this.#packet.rescaleTs({ num: 1, den: this.#fps }, this.#stream.timeBase);
      checked(await this.#format.interleavedWriteFrame(this.#packet), "writing a packet");
    }
  }
}

async function openEncoder(shape: PictureShape, threads: number): Promise<CodecContext> {
  const encoder = h264Encoder();
  const codec = new CodecContext();
  codec.allocContext3(encoder);
  codec.width = shape.width;
  codec.height = shape.height;
  codec.pixelFormat = AV_PIX_FMT_YUV420P;
  codec.timeBase = new Rational(1, shape.fps);
  codec.framerate = new Rational(shape.fps, 1);
  codec.sampleAspectRatio = new Rational(1, 1);
  codec.gopSize = KEYFRAME_SECONDS * shape.fps;
  codec.colorRange = AVCOL_RANGE_MPEG;
  codec.colorPrimaries = AVCOL_PRI_BT709;
  codec.colorTrc = AVCOL_TRC_BT709;
  codec.colorSpace = AVCOL_SPC_BT709;
  codec.chromaLocation = AVCHROMA_LOC_LEFT;
  codec.threadCount = threads;
  codec.setFlags(AV_CODEC_FLAG_GLOBAL_HEADER);
  try {
    // No keyframes at scene cuts: interpolated frames look like cuts to the encoder. No macroblock tree: with AVX-512 and B-frames
    // this build's gives other bytes for the same frames from one run to the next (measured), and one seed must give one clip.
    using options = Dictionary.fromObject({
      preset: PRESET,
      crf: String(CRF),
      profile: "high",
      sc_threshold: "0",
      "x264-params": "mbtree=0",
    });
    checked(await codec.open2(encoder, options), "opening libx264");
    return codec;
  } catch (thrown) {
    codec.freeContext();
    throw thrown;
  }
}
