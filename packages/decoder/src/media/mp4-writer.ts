// H.264 in MP4: frames in, a finished file out, its index in front. Owns native memory until `close`.
import { AVERROR_EAGAIN, AVERROR_EOF, AV_PICTURE_TYPE_NONE } from "node-av/constants";
import { Dictionary, FormatContext, Packet, Rational, type CodecContext, type Frame, type Stream } from "node-av/lib";
import type { PictureShape } from "./filter-chain.ts";
import { openH264Encoder, type EncoderSettings } from "./h264-encoder.ts";
import { checked, mediaError } from "./native.ts";

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

  /** Creates the file at `path`; `comment`, unless it is "", lies in it. Throws UNSUPPORTED, DISK_FULL, INTERNAL. */
  static async open(
    path: string,
    shape: PictureShape,
    { encoder, comment }: { readonly encoder: EncoderSettings; readonly comment: string },
  ): Promise<Mp4Writer> {
    const codec = await openH264Encoder(shape, encoder);
    const format = new FormatContext();
    try {
      checked(format.allocOutputContext2(null, "mp4", path), "making the MP4");
      checked(await format.openOutput(), "opening the file");
      const stream = format.newStream(null);
      stream.timeBase = new Rational(1, shape.fps);
      stream.avgFrameRate = new Rational(shape.fps, 1);
      checked(stream.codecpar.fromContext(codec), "describing the stream");
      if (comment !== "") format.metadata = Dictionary.fromObject({ comment });
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
