// A file nobody else can read, gone in every outcome. Only the decoder's own temporary files live here.
import { mkdtemp, rm } from "node:fs/promises";
import { join } from "node:path";
import { MoevieError } from "@moevie/contracts";

export interface PrivateFile extends AsyncDisposable {
  /** Nothing is there yet. */
  readonly path: string;
}

/** Makes room for one file in a new folder (0700) under `folder`. Throws DISK_FULL, INTERNAL. */
export async function privateFile(folder: string, name: string): Promise<PrivateFile> {
  const own = await mkdtemp(join(folder, "moevie-clip-")).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code === "ENOSPC")
      throw new MoevieError("DISK_FULL", "There is no room on the decoder's disk for the clip.", { cause });
    throw new MoevieError("INTERNAL", "The decoder cannot write its temporary files.", {
      cause,
      detail: cause.message,
    });
  });
  return { path: join(own, name), [Symbol.asyncDispose]: () => rm(own, { recursive: true, force: true }) };
}
