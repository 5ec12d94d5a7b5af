// The H.264 encoder of a clip: constant quality under a bit rate cap, on the device where there is one that encodes, else on the CPU.
import {
  AVCHROMA_LOC_LEFT,
  AVCOL_PRI_BT709,
  AVCOL_RANGE_MPEG,
  AVCOL_SPC_BT709,
  AVCOL_TRC_BT709,
  AV_CODEC_FLAG_GLOBAL_HEADER,
  AV_PIX_FMT_YUV420P,
  FF_ENCODER_H264_NVENC,
} from "node-av/constants";
import { Codec, CodecContext, Dictionary, Rational } from "node-av/lib";
import { asMoevieError } from "@moevie/contracts";
import type { PictureShape } from "./filter-chain.ts";
import { checked, h264Encoder, present } from "./native.ts";

export interface EncoderSettings {
  /** As the graphs' device is named: cpu, cuda:N. */
  readonly device: string;
  readonly threads: number;
  /** Told why a clip is encoded on the CPU where the device is a GPU. */
  readonly onCpu?: (why: string) => void;
}

/** Measured on the default clip: a third of the next preset's size for a third more time, and slower ones gain nothing. */
const PRESET = "veryfast";
const CRF = 20;
const KEYFRAME_SECONDS = 2;
/** Most bits a pixel may cost on average over two seconds: 7.7 Mbit/s at 1280x720 and 24 fps; the default clip takes 3.2. */
const BITS_PER_PIXEL_MAX = 0.35;
/** No keyframes at scene cuts: interpolated frames look like cuts to the encoder. No macroblock tree: with AVX-512 and B-frames
 * this build's gives other bytes for the same frames from one run to the next (measured), and one seed must give one clip. */
const ON_CPU = { preset: PRESET, crf: String(CRF), profile: "high", sc_threshold: "0", "x264-params": "mbtree=0" };
/** The nearest of NVENC's: constant quality, the same high profile, keyframes where they are asked for. */
const ON_CUDA = { preset: "p4", rc: "vbr", cq: String(CRF), profile: "high", "no-scenecut": "1", "forced-idr": "1" };

/** The most bits a second of a clip. */
function bitRateMax({ width, height, fps }: PictureShape): number {
  return Math.round(width * height * fps * BITS_PER_PIXEL_MAX);
}

/** An open encoder; the caller frees it. Throws UNSUPPORTED, INTERNAL. */
export async function openH264Encoder(shape: PictureShape, settings: EncoderSettings): Promise<CodecContext> {
  if (settings.device.startsWith("cuda")) {
    try {
      // A driver without NVENC, or all its sessions taken, is found out by opening it only.
      const nvenc = present(Codec.findEncoderByName(FF_ENCODER_H264_NVENC), FF_ENCODER_H264_NVENC);
      return await open(nvenc, shape, settings, ON_CUDA);
    } catch (thrown) {
      const { message, detail = "" } = asMoevieError(thrown);
      settings.onCpu?.(`${message} ${detail}`.trim());
    }
  }
  return open(h264Encoder(), shape, settings, ON_CPU);
}

async function open(
  encoder: Codec,
  shape: PictureShape,
  { threads }: EncoderSettings,
  values: Readonly<Record<string, string>>,
): Promise<CodecContext> {
  const codec = new CodecContext();
  codec.allocContext3(encoder);
  codec.width = shape.width;
  codec.height = shape.height;
  codec.pixelFormat = AV_PIX_FMT_YUV420P;
  codec.timeBase = new Rational(1, shape.fps);
  codec.framerate = new Rational(shape.fps, 1);
  codec.sampleAspectRatio = new Rational(1, 1);
  codec.gopSize = KEYFRAME_SECONDS * shape.fps;
  codec.rcMaxRate = BigInt(bitRateMax(shape));
  codec.rcBufferSize = 2 * bitRateMax(shape);
  codec.colorRange = AVCOL_RANGE_MPEG;
  codec.colorPrimaries = AVCOL_PRI_BT709;
  codec.colorTrc = AVCOL_TRC_BT709;
  codec.colorSpace = AVCOL_SPC_BT709;
  codec.chromaLocation = AVCHROMA_LOC_LEFT;
  codec.threadCount = threads;
  codec.setFlags(AV_CODEC_FLAG_GLOBAL_HEADER);
  try {
    using options = Dictionary.fromObject({ ...values });
    checked(await codec.open2(encoder, options), "opening the H.264 encoder");
    return codec;
  } catch (thrown) {
    codec.freeContext();
    throw thrown;
  }
}
