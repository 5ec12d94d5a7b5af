// The finished clip's bytes for gRPC and HTTP: found by the record, read in chunks.
import { MoevieError } from "@moevie/contracts";
import type { OpenArtefact } from "@moevie/job-store";
import type { Gateway } from "./gateway.ts";

/** The clip of a job. Throws VIDEO_NOT_FOUND and VIDEO_NOT_READY. */
export async function openClip(gateway: Gateway, id: string): Promise<OpenArtefact> {
  const { state } = await gateway.store.get(id);
  if (state.kind !== "completed")
    throw new MoevieError("VIDEO_NOT_READY", `The video is ${state.kind}: it has no file.`);
  return gateway.store.artefacts.open({ id, token: state.token });
}
