// The finished clip's bytes for gRPC and HTTP: found by the record, read in chunks.
import { MoevieError, limit } from "@moevie/contracts";
import type { Companion, OpenArtefact } from "@moevie/job-store";
import type { Gateway } from "./gateway.ts";

/** The clip of a job, or what lies beside it. Throws VIDEO_NOT_FOUND and VIDEO_NOT_READY. */
export async function openClip(gateway: Gateway, id: string, file?: "mp4" | Companion): Promise<OpenArtefact> {
  const { state } = await gateway.store.get(id);
  if (state.kind !== "completed")
    throw new MoevieError("VIDEO_NOT_READY", `The video is ${state.kind}: it has no file.`);
  return gateway.store.artefacts.open({ id, token: state.token }, file);
}

/** The clip in messages of at most tensorChunkBytesMax. Throws what openClip throws. */
export async function* clipChunks(gateway: Gateway, id: string): AsyncIterable<{ chunk: Buffer }> {
  const chunkBytesMax = limit("tensorChunkBytesMax");
  for await (const part of (await openClip(gateway, id)).read()) {
    const bytes = part as Buffer;
    for (let at = 0; at < bytes.byteLength; at += chunkBytesMax)
      yield { chunk: bytes.subarray(at, at + chunkBytesMax) };
  }
}
