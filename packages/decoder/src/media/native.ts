// What every use of FFmpeg shares: its log kept off stderr, its return codes as typed errors. Knows no clip.
import { MoevieError } from "@moevie/contracts";
import { AVERROR_ENOSPC, AV_LOG_FATAL, FF_ENCODER_LIBX264 } from "node-av/constants";
import { Codec, FFmpegError, Log } from "node-av/lib";

// FFmpeg writes to stderr by itself; what matters comes back as return codes.
Log.setLevel(AV_LOG_FATAL);

/** The error of one failed FFmpeg call: DISK_FULL for a full disk, INTERNAL otherwise. */
export function mediaError(code: number, what: string): MoevieError {
  const detail = `FFmpeg: ${what}: ${FFmpegError.strerror(code)} (${code})`;
  if (code === AVERROR_ENOSPC)
    return new MoevieError("DISK_FULL", "There is no room on the decoder's disk for the clip.", { detail });
  return new MoevieError("INTERNAL", "The clip could not be encoded.", { detail });
}

/** Returns `code` unless it is negative. Throws what `mediaError` says. */
export function checked(code: number, what: string): number {
  if (code < 0) throw mediaError(code, what);
  return code;
}

/** Returns `value` unless it is missing: FFmpeg answers null for a codec or filter it was built without. */
export function present<T>(value: T | null, what: string): T {
  if (value === null) throw new MoevieError("UNSUPPORTED", `This build of FFmpeg has no ${what}.`);
  return value;
}

/** The H.264 encoder. Throws UNSUPPORTED when this build has none. */
export function h264Encoder(): Codec {
  return present(Codec.findEncoderByName(FF_ENCODER_LIBX264), "libx264");
}
