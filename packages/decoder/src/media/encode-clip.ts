// Model frames to a finished MP4: rate, size, colour, H.264, exactly the frames asked for. Holds one model frame at a time.
import { Frame } from "node-av/lib";
import { MoevieError } from "@moevie/contracts";
import { throwIfCancelled } from "../cancel.ts";
import { filterChain, type PictureShape } from "./filter-chain.ts";
import type { EncoderSettings } from "./h264-encoder.ts";
import { Mp4Writer } from "./mp4-writer.ts";
import { PictureFilter } from "./picture-filter.ts";

export interface ClipEncoding {
  readonly path: string;
  /** What the frames are: the model's size and rate. */
  readonly from: PictureShape;
  /** What the clip is to be. */
  readonly to: PictureShape;
  readonly frameCount: number;
  /** Of 0 to 255; see filterChain. */
  readonly steadyLevels: number;
  /** Written into the file. */
  readonly comment: string;
  readonly encoder: EncoderSettings;
  readonly signal: AbortSignal;
}

/** The last frame is shown on until the clip is full: filters look this many model frames ahead at most. */
const TAIL_FRAMES_MAX = 16;

/**
 * Encodes frames [height, width, 3] as they come; yields the number of clip frames encoded after each. Stops taking frames when
 * the clip is full. Throws CANCELLED within one frame of the signal, DISK_FULL, UNSUPPORTED, INTERNAL.
 */
export async function* encodeClip(frames: AsyncIterable<Uint8Array>, clip: ClipEncoding): AsyncGenerator<number, void> {
  const filter = await PictureFilter.open(clip.from, filterChain(clip.from, clip.to, clip.steadyLevels));
  let writer: Mp4Writer | undefined;
  using frame = new Frame();
  frame.alloc();
  try {
    const sink = (writer = await Mp4Writer.open(clip.path, clip.to, clip));
    const move = async (): Promise<void> => {
      while (sink.frames < clip.frameCount && (await filter.pull(frame))) {
        throwIfCancelled(clip.signal);
        await sink.write(frame);
        frame.unref();
      }
    };
    for await (const rgb of extended(frames, () => sink.frames < clip.frameCount)) {
      throwIfCancelled(clip.signal);
      await filter.push(rgb);
      await move();
      yield sink.frames;
      if (sink.frames === clip.frameCount) break;
    }
    if (sink.frames < clip.frameCount) {
      await filter.end();
      await move();
    }
    if (sink.frames !== clip.frameCount)
      throw new MoevieError("INTERNAL", "The clip came out too short.", {
        detail: `${sink.frames} of ${clip.frameCount} frames`,
      });
    await sink.finish();
    yield sink.frames;
  } finally {
    await writer?.close();
    filter.close();
  }
}

/** `frames`, then the last one again while more is wanted. */
async function* extended(frames: AsyncIterable<Uint8Array>, wanted: () => boolean): AsyncGenerator<Uint8Array, void> {
  let last: Uint8Array | undefined;
  for await (const rgb of frames) yield (last = rgb);
  if (last === undefined) return;
  for (let again = 0; again < TAIL_FRAMES_MAX && wanted(); again++) yield last;
}
