// One frame as a JPEG picture.
import { AV_CODEC_FLAG_QSCALE, AV_PIX_FMT_YUVJ420P, FF_ENCODER_MJPEG } from "node-av/constants";
import { Codec, CodecContext, Packet, Rational, type Frame } from "node-av/lib";
import { checked, present } from "./native.ts";

/** FFmpeg's quantiser scale, 2 best to 31 worst, in its unit of 118. */
const QUALITY = 3 * 118;

/** The bytes of `frame`, which is yuvj420p. Throws UNSUPPORTED, INTERNAL. */
export async function encodeJpeg(frame: Frame): Promise<Buffer> {
  const encoder = present(Codec.findEncoderByName(FF_ENCODER_MJPEG), "JPEG encoder");
  using codec = new CodecContext();
  codec.allocContext3(encoder);
  codec.width = frame.width;
  codec.height = frame.height;
  codec.pixelFormat = AV_PIX_FMT_YUVJ420P;
  codec.timeBase = new Rational(1, 1);
  codec.threadCount = 1;
  codec.setFlags(AV_CODEC_FLAG_QSCALE);
  codec.globalQuality = QUALITY;
  checked(await codec.open2(encoder), "opening the JPEG encoder");
  frame.pts = 0n;
  frame.quality = QUALITY;
  checked(await codec.sendFrame(frame), "encoding a JPEG picture");
  using packet = new Packet();
  packet.alloc();
  checked(await codec.receivePacket(packet), "taking a JPEG picture");
  return Buffer.from(present(packet.data, "JPEG picture"));
}
