// Files of jobs on disk: one folder a job; every file belongs to the lease whose token begins its name. A clip becomes visible only
// when the job's record names its attempt as the finished one, so a late scheduler can write but never publish. Knows no state of jobs.
import * as promisedFiles from "node:fs/promises";
import { createReadStream } from "node:fs";
import { dirname, join } from "node:path";
import { MoevieError } from "@moevie/contracts";
import {
  COMPANIONS,
  fileMissing,
  type ArtefactAttempt,
  type Artefacts,
  type AttemptName,
  type Companion,
  type OpenArtefact,
} from "./artefact-names.ts";

/** What the files of jobs need of a disk; the simulator has its own. */
export type Disk = Pick<
  typeof promisedFiles,
  "mkdir" | "open" | "readdir" | "rename" | "rm" | "rmdir" | "stat" | "writeFile"
>;
export const SYSTEM_DISK: Disk = promisedFiles;

const ID = /^[0-9a-f-]{36}$/;

class FileAttempt implements ArtefactAttempt {
  readonly #disk: Disk;
  readonly #path: string;
  readonly #file: promisedFiles.FileHandle;
  #sizeBytes = 0;

  constructor(disk: Disk, path: string, file: promisedFiles.FileHandle) {
    this.#disk = disk;
    this.#path = path;
    this.#file = file;
  }

  async write(chunk: Uint8Array): Promise<void> {
    try {
      await this.#file.writeFile(chunk);
    } catch (thrown) {
      throw diskError(thrown);
    }
    this.#sizeBytes += chunk.byteLength;
  }

  async writeCompanion(name: Companion, bytes: Uint8Array | string): Promise<void> {
    try {
      await this.#disk.writeFile(this.#companion(name), bytes, { mode: 0o600, flush: true });
    } catch (thrown) {
      throw diskError(thrown);
    }
  }

  async commit(): Promise<number> {
    try {
      await this.#file.sync();
      // The file's name and that of the job's folder, too.
      await syncFolder(this.#disk, dirname(this.#path));
      await syncFolder(this.#disk, dirname(dirname(this.#path)));
    } catch (thrown) {
      throw diskError(thrown);
    } finally {
      await this.#file.close();
    }
    return this.#sizeBytes;
  }

  async discard(): Promise<void> {
    await this.#file.close();
    const paths = [this.#path, ...COMPANIONS.map((name) => this.#companion(name))];
    await Promise.all(paths.map((path) => this.#disk.rm(path, { force: true })));
  }

  #companion(name: Companion): string {
    return this.#path.replace(/mp4$/, name);
  }
}

export class FileArtefacts implements Artefacts {
  readonly disk: Disk;
  readonly #folder: string;

  constructor(folder: string, disk: Disk = SYSTEM_DISK) {
    this.disk = disk;
    this.#folder = folder;
  }

  async createAttempt(attempt: AttemptName): Promise<ArtefactAttempt> {
    try {
      const path = await this.place(attempt.id, `${attempt.token}.mp4`);
      return new FileAttempt(this.disk, path, await this.disk.open(path, "w", 0o600));
    } catch (thrown) {
      throw diskError(thrown);
    }
  }

  async open(attempt: AttemptName, file: "mp4" | Companion = "mp4"): Promise<OpenArtefact> {
    const path = this.path(attempt.id, `${attempt.token}.${file}`);
    const found = await this.disk.stat(path).catch(() => undefined);
    if (found === undefined) throw fileMissing(file, path);
    return { sizeBytes: found.size, read: (range) => createReadStream(path, range ?? {}) };
  }

  /** Path of a job's file. */
  path(id: string, name: string): string {
    return join(this.#jobFolder(id), name);
  }

  /** Path of a file to be made: its folder is there. Throws DISK_FULL. */
  async place(id: string, name: string): Promise<string> {
    try {
      await this.disk.mkdir(this.#jobFolder(id), { recursive: true, mode: 0o700 });
      return this.path(id, name);
    } catch (thrown) {
      throw diskError(thrown);
    }
  }

  async names(id: string): Promise<readonly string[]> {
    return await this.disk.readdir(this.#jobFolder(id)).catch(() => []);
  }

  async remove(id: string, names: readonly string[]): Promise<void> {
    await Promise.all(names.map((name) => this.disk.rm(this.path(id, name), { recursive: true, force: true })));
  }

  /** Removes the job's folder, unless something is in it. */
  async removeFolder(id: string): Promise<void> {
    await this.disk.rmdir(this.#jobFolder(id)).catch(() => undefined);
  }

  async ids(): Promise<readonly string[]> {
    return (await this.disk.readdir(this.#folder).catch(() => [])).filter((name) => ID.test(name));
  }

  #jobFolder(id: string): string {
    if (!ID.test(id)) throw new Error("artefacts are named by job ids");
    return join(this.#folder, id);
  }
}

/** Makes the names in it durable. */
export async function syncFolder(disk: Disk, path: string): Promise<void> {
  const folder = await disk.open(path);
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

const UNWRITABLE: ReadonlySet<string> = new Set(["EROFS", "EACCES", "EPERM", "ENOTDIR", "EEXIST"]);

/** A file system error as the catalogue names it: no room is DISK_FULL, no right is CONFIG_INVALID. */
export function diskError(thrown: unknown): unknown {
  if (!(thrown instanceof Error) || !("code" in thrown)) return thrown;
  const options = { cause: thrown, detail: thrown.message };
  if (thrown.code === "ENOSPC" || thrown.code === "EDQUOT")
    return new MoevieError("DISK_FULL", "There is no room left on the disk for the job's files.", options);
  if (UNWRITABLE.has(String(thrown.code))) {
    return new MoevieError(
      "CONFIG_INVALID",
      "The folder of the jobs' files cannot be written: see MOEVIE_DATA.",
      options,
    );
  }
  return thrown;
}
