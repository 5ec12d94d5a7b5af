// Clips of prompts through the public API of a real cluster, read back from their MP4s and judged.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { VideoClient } from "@moevie/client";
import { readFrames } from "../../e2e/probe-clip.ts";
import { JUDGED, type Judge, type Verdict } from "./judge.ts";

export const LANGUAGES = ["english", "chinese"] as const;
export type Language = (typeof LANGUAGES)[number];
export type Quality = "standard" | "draft";

/** How a clip is finished: at the model's own size and rate, or through the whole chain. Both show 17 model frames. */
const CHAINS = {
  model: { size: "144x80", fps: 8, seconds: 2.125 },
  "720p": { size: "1280x720", fps: 24, seconds: 2.125 },
} as const;
export type Chain = keyof typeof CHAINS;

const MODEL = { width: 144, height: 80 };
/** Seconds between the frames that the judge looks at. */
const KEY_SECONDS = 0.5;
const WAIT_MS = 60_000;
const QUALITIES = { standard: "QUALITY_STANDARD", draft: "QUALITY_DRAFT" } as const;

export interface ClipOrder {
  readonly prompt: string;
  readonly seed: number;
  readonly quality: Quality;
  readonly chain: Chain;
}

export interface JudgedClip extends Verdict {
  /** Mean change from frame to frame, in levels of 255, left and right of where a still subject stands. */
  readonly sideChange: number;
}

/** Makes one clip and judges it. Throws what the job failed with. */
export async function judgedClip(client: VideoClient, judge: Judge, order: ClipOrder): Promise<JudgedClip> {
  const { prompt, seed } = order;
  const chain = CHAINS[order.chain];
  const operation = await client.createVideo({ prompt, seed, quality: QUALITIES[order.quality], ...chain });
  const name = operation.name.replace(/^operations\//, "videos/");
  for (let done = operation; !done.done;) done = await client.waitOperation(operation.name, WAIT_MS);
  const folder = mkdtempSync(join(tmpdir(), "moevie-adherence-"));
  try {
    const path = join(folder, "clip.mp4");
    const chunks: Buffer[] = [];
    for await (const chunk of client.downloadVideo(name)) chunks.push(chunk);
    writeFileSync(path, Buffer.concat(chunks));
    const frames = await readFrames(path, MODEL);
    await client.deleteVideo(name);
    const keys = Array.from({ length: JUDGED.frames }, (_, k) => frames[k * KEY_SECONDS * chain.fps]!);
    return { ...judge.judge(halved(keys)), sideChange: sideChange(frames) };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Frames [80, 144, 3] as pictures [n, 3, 40, 72] in [-1, 1], each pixel the mean of four. */
function halved(frames: readonly Uint8Array[]): Float32Array {
  const { width, height } = JUDGED;
  const out = new Float32Array(frames.length * 3 * height * width);
  for (const [n, frame] of frames.entries())
    for (let c = 0; c < 3; c++)
      for (let y = 0; y < height; y++)
        for (let x = 0; x < width; x++) {
          const at = (2 * y * MODEL.width + 2 * x) * 3 + c;
          const below = at + MODEL.width * 3;
          const sum = frame[at]! + frame[at + 3]! + frame[below]! + frame[below + 3]!;
          out[((n * 3 + c) * height + y) * width + x] = sum / 4 / 127.5 - 1;
        }
  return out;
}

function sideChange(frames: readonly Uint8Array[]): number {
  const quarter = MODEL.width / 4;
  let sum = 0;
  let count = 0;
  for (const [n, frame] of frames.entries()) {
    const before = frames[n - 1];
    if (before === undefined) continue;
    for (let y = 0; y < MODEL.height; y++)
      for (let x = 0; x < MODEL.width; x++) {
        if (x >= quarter && x < 3 * quarter) continue;
        for (let c = 0; c < 3; c++) {
          const at = (y * MODEL.width + x) * 3 + c;
          sum += Math.abs(frame[at]! - before[at]!);
          count++;
        }
      }
  }
  return sum / count;
}
