// Large checkpoints as files in a folder that all schedulers share, a ReadWriteMany volume in a cluster. Written and read as the store in
// a folder does; what differs is which setting an error names.
import { constants } from "node:fs";
import { access, mkdir } from "node:fs/promises";
import { MoevieError, asMoevieError } from "@moevie/contracts";
import { FileArtefacts } from "./artefacts.ts";
import { readCheckpoint, writeCheckpoint, type CheckpointFacts } from "./checkpoint-file.ts";
import { isPlaced, type CheckpointPlace } from "./checkpoint-place.ts";

/** The folder, made when it is not there. Throws CONFIG_INVALID when it cannot be written, DISK_FULL. */
export async function openCheckpointFolder(folder: string): Promise<CheckpointPlace> {
  await named(folder, async () => {
    await mkdir(folder, { recursive: true, mode: 0o700 });
    await access(folder, constants.W_OK | constants.X_OK);
  });
  return new CheckpointFolder(folder);
}

class CheckpointFolder implements CheckpointPlace {
  readonly #folder: string;
  readonly #files: FileArtefacts;

  constructor(folder: string) {
    this.#folder = folder;
    this.#files = new FileArtefacts(folder);
  }

  async put(id: string, name: string, parts: readonly Uint8Array[]): Promise<string> {
    return await named(this.#folder, async () => await writeCheckpoint(await this.#files.place(id, name), parts));
  }

  async read(id: string, facts: CheckpointFacts): Promise<Uint8Array> {
    try {
      return await readCheckpoint(this.#files.path(id, facts.name), facts);
    } catch (thrown) {
      if (await this.#isSound(asMoevieError(thrown).cause)) throw thrown;
      const detail = asMoevieError(thrown).detail;
      throw new MoevieError("PEER_UNAVAILABLE", "The folder of checkpoints cannot be read.", {
        cause: thrown,
        ...(detail === undefined ? {} : { detail }),
      });
    }
  }

  /** Is it the file that is missing or damaged? The volume may be away, refuse us or fail: then the file may be whole. */
  async #isSound(cause: unknown): Promise<boolean> {
    const code = cause instanceof Error && "code" in cause ? cause.code : undefined;
    if (code === undefined) return true;
    if (code !== "ENOENT") return false;
    return await access(this.#folder).then(
      () => true,
      () => false,
    );
  }

  async remove(id: string, names: readonly string[]): Promise<void> {
    await this.#files.remove(id, names);
    await this.#files.removeFolder(id);
  }

  async all(): Promise<readonly string[]> {
    const ids = await this.#files.ids();
    const names = await Promise.all(
      ids.map(async (id) => (await this.#files.names(id)).map((name) => `${id}/${name}`)),
    );
    return names.flat().filter((key) => isPlaced(key));
  }
}

/** Errors of `work` that are the folder's say which setting names it. */
async function named<T>(folder: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (thrown) {
    const error = asMoevieError(thrown);
    if (error.reason === "DISK_FULL") throw error;
    const detail = error.detail ?? (thrown instanceof Error ? thrown.message : undefined);
    throw new MoevieError(
      "CONFIG_INVALID",
      `MOEVIE_CHECKPOINTS is "file://${folder}", which cannot be written; allowed: a folder that all schedulers share and can write`,
      { cause: thrown, ...(detail === undefined ? {} : { detail }) },
    );
  }
}
