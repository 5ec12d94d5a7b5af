// Step decode: the finished latent to an MP4 in the store's attempt file, as the decoder streams it.
import { createHash } from "node:crypto";
import { MoevieError, limit, type ClipFacts } from "@moevie/contracts";
import type { ArtefactAttempt, JobStore } from "@moevie/job-store";
import { clipFrames, decodeProgress } from "./job-progress.ts";
import type { JobRun } from "./job-run.ts";
import type { LatentShape } from "./start-latent.ts";
import { bytesOf, f32Head, headAndChunks } from "./tensor-stream.ts";

export interface DecodedClip {
  /** Written whole, not yet committed. */
  readonly attempt: ArtefactAttempt;
  readonly facts: ClipFacts;
}

/** What comes beside the clip. */
const STILLS = { thumbnailJpeg: "thumbnail.jpg", spritesJpeg: "sprites.jpg" } as const;

/** One Decode call into a file begun anew; what a call that fails has written is removed. Its caller repeats it. */
export async function decode(
  run: JobRun,
  store: JobStore,
  latent: Float32Array,
  shape: LatentShape,
  traceparent: string,
): Promise<DecodedClip> {
  const attempt = await store.artefacts.createAttempt(run.held.lease);
  try {
    return { attempt, facts: await receive(run, attempt, latent, shape, traceparent) };
  } catch (thrown) {
    await discard(run, attempt);
    throw thrown;
  }
}

/** Never rejects: a sweep removes what stays. */
export async function discard(run: JobRun, attempt: ArtefactAttempt): Promise<void> {
  await attempt.discard().catch((left: unknown) => run.log.warn({ err: left }, "a broken-off clip was left behind"));
}

async function receive(
  run: JobRun,
  attempt: ArtefactAttempt,
  latent: Float32Array,
  shape: LatentShape,
  traceparent: string,
): Promise<ClipFacts> {
  const { width, height, fps, colorCorrection } = run.spec;
  const frameCount = clipFrames(run);
  const comment = JSON.stringify({
    by: "moevie",
    model: run.spec.model,
    digest: run.model.digest,
    seed: run.spec.seed,
  });
  const saveFrames = run.spec.saveFrames ?? "";
  const asked = { width, height, fps, frameCount, comment, colorCorrection, saveFrames };
  const head = { bundleDigest: run.model.digest, latent: f32Head(shape), ...asked };
  const call = { signal: run.held.signal, timeoutMs: limit("decodeCallMsMax"), traceparent };
  const hash = createHash("sha256");
  const startMs = performance.now();
  let sizeBytes = 0;
  let facts: ClipFacts | undefined;
  let shownPercent = 0;
  for await (const answer of run.peers.decoder.bidi("Decode", headAndChunks(head, bytesOf(latent)), call)) {
    if (answer.mp4Chunk !== undefined) {
      hash.update(answer.mp4Chunk);
      sizeBytes += answer.mp4Chunk.length;
      await attempt.write(answer.mp4Chunk);
    } else if (answer.progress !== undefined) {
      const progress = decodeProgress(run, answer.progress.framesEncoded, (performance.now() - startMs) / 1000);
      if (Math.floor(progress.percent) <= shownPercent) continue;
      shownPercent = Math.floor(progress.percent);
      await run.held.progress(progress, run.stages.timings);
    } else if (answer.facts !== undefined) facts = answer.facts;
    else
      for (const part of ["thumbnailJpeg", "spritesJpeg"] as const)
        if (answer[part] !== undefined) await attempt.writeCompanion(STILLS[part], answer[part]);
  }
  check(facts, { sizeBytes, sha256: hash.digest("hex"), frameCount });
  run.pace.secondsPerFrame = (performance.now() - startMs) / 1000 / frameCount;
  return facts;
}

function check(
  facts: ClipFacts | undefined,
  seen: { readonly sizeBytes: number; readonly sha256: string; readonly frameCount: number },
): asserts facts is ClipFacts {
  if (facts === undefined) throw new MoevieError("PEER_UNAVAILABLE", "The decoder ended its answer early.");
  for (const name of ["sizeBytes", "sha256", "frameCount"] as const) {
    if (facts[name] === seen[name]) continue;
    throw new MoevieError("INTERNAL", "The decoder's clip is not what the decoder says it is.", {
      detail: `${name} is ${seen[name]}, the decoder says ${facts[name]}`,
    });
  }
}
