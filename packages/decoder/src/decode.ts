// The decode step: a latent to pictures to H.264 to MP4 chunks, pictures and encoding side by side. Pure: keeps nothing, and
// its temporary file is gone in every outcome.
import { createHash } from "node:crypto";
import { open } from "node:fs/promises";
import { MoevieError, limit, type ClipFacts, type DecodeProgress } from "@moevie/contracts";
import { throwIfCancelled } from "./cancel.ts";
import { correctColour, type ColourReport, type ColourSource } from "./colour/correct-colour.ts";
import { latentColours, type ColourMap } from "./colour/latent-colours.ts";
import type { ValidDecode } from "./decode-request.ts";
import { PictureRecord } from "./frames/picture-record.ts";
import { readAhead } from "./frames/read-ahead.ts";
import { probeFinishedClip } from "./media/clip-probe.ts";
import { encodeClip } from "./media/encode-clip.ts";
import type { EncoderSettings } from "./media/h264-encoder.ts";
import { privateFile } from "./media/private-file.ts";
import { StillsTaker } from "./media/stills.ts";
import type { CausalDecoder } from "./vae/causal-decoder.ts";

/** Pictures decoded before the encoder takes them: one latent frame's worth and the next. */
const PICTURES_AHEAD_MAX = 8;

export type DecodePart =
  | { readonly progress: DecodeProgress }
  | { readonly mp4Chunk: Buffer }
  | { readonly thumbnailJpeg: Buffer }
  | { readonly spritesJpeg: Buffer }
  | { readonly facts: ClipFacts };

export interface DecodeSettings {
  /** What the model's latents mean. */
  readonly colours: ColourMap;
  /** Where the temporary file goes. */
  readonly folder: string;
  /** Folder of tensors that requests may name; empty: they may not. */
  readonly referenceDir: string;
  readonly encoding: EncoderSettings;
}

/** Progress while pictures are made, then the file in order, then its facts. Throws CANCELLED, DISK_FULL, OUT_OF_MEMORY, INTERNAL. */
export async function* decode(
  request: ValidDecode,
  decoder: CausalDecoder,
  settings: DecodeSettings,
  signal: AbortSignal,
): AsyncGenerator<DecodePart, void> {
  await using file = await privateFile(settings.folder, "clip.mp4");
  const startMs = performance.now();
  const times = { vaeUs: 0, upsampleUs: 0 };
  const color: ColourReport = { castLevels: 0, flickerFrames: 0 };
  await using record = await PictureRecord.begin(request, settings.referenceDir);
  const decoded = decoder.frames(request.latent, signal, times, record.add);
  const corrected = request.colorCorrection
    ? correctColour(decoded, colourSource(request, settings.colours), color)
    : decoded;
  const pictures = readAhead(corrected, PICTURES_AHEAD_MAX);
  const { from, to, frameCount, comment, steadyLevels } = request;
  using taker = new StillsTaker(from, to, Math.min(request.pictureCount, Math.ceil((frameCount * from.fps) / to.fps)));
  for await (const framesEncoded of encodeClip(taker.watch(pictures), {
    path: file.path,
    from,
    to,
    frameCount,
    comment,
    steadyLevels,
    encoder: settings.encoding,
    signal,
  })) {
    yield { progress: { framesEncoded, frameCount } };
  }
  const encodeUs = Math.round((performance.now() - startMs) * 1000);
  const probed = await probeFinishedClip(file.path);
  if (probed.frameCount !== frameCount || probed.width !== to.width || probed.height !== to.height) {
    throw new MoevieError("INTERNAL", "The finished clip is not what was asked for.", {
      detail: JSON.stringify(probed),
    });
  }
  const stills = await taker.finish();
  await record.finish();
  const sent = yield* fileChunks(file.path, signal);
  yield { thumbnailJpeg: stills.thumbnailJpeg };
  yield { spritesJpeg: stills.spritesJpeg };
  yield {
    facts: {
      ...probed,
      ...sent,
      sprites: stills.sprites,
      encodeUs,
      vaeUs: Math.round(times.vaeUs),
      upsampleUs: Math.round(times.upsampleUs),
      color: request.colorCorrection ? color : null,
    },
  };
}

function colourSource({ latent, from, pictureCount }: ValidDecode, colours: ColourMap): ColourSource {
  const [, latentFrames, , columns] = latent.shape;
  return {
    grid: { width: from.width, height: from.height, perCell: from.width / columns },
    temporalStride: latentFrames < 2 ? 1 : (pictureCount - 1) / (latentFrames - 1),
    latentFrames,
    ...(colours.toRgb.length > 0 && { meant: (t: number) => latentColours(latent, t, colours) }),
  };
}

async function* fileChunks(
  path: string,
  signal: AbortSignal,
): AsyncGenerator<DecodePart, { sizeBytes: number; sha256: string }> {
  await using file = await open(path, "r");
  const hash = createHash("sha256");
  let sizeBytes = 0;
  for (;;) {
    throwIfCancelled(signal);
    const { bytesRead, buffer } = await file.read(
      Buffer.allocUnsafe(limit("tensorChunkBytesMax")),
      0,
      limit("tensorChunkBytesMax"),
    );
    if (bytesRead === 0) return { sizeBytes, sha256: hash.digest("hex") };
    const mp4Chunk = buffer.subarray(0, bytesRead);
    hash.update(mp4Chunk);
    sizeBytes += bytesRead;
    yield { mp4Chunk };
  }
}
