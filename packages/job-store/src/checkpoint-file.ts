// A checkpoint on disk: written under another name, made durable, then renamed; read back whole or not at all. In slices, so that
// hundreds of megabytes hold up neither streams nor heartbeats.
import { createHash } from "node:crypto";
import { dirname } from "node:path";
import { MoevieError, asMoevieError, limit } from "@moevie/contracts";
import { SYSTEM_DISK, diskError, syncFolder, type Disk } from "./artefacts.ts";

/** What the job's record says of the file. */
export interface CheckpointFacts {
  /** File name in the job's folder. */
  readonly name: string;
  readonly sizeBytes: number;
  /** sha256 of the file, hex. */
  readonly sha256: string;
}

/** The first of `kept`, newest first, that `read` gives whole; null when none is kept. Throws STORE_CORRUPT when all are damaged. */
export async function newestSound(
  kept: readonly CheckpointFacts[],
  read: (facts: CheckpointFacts) => Promise<Uint8Array>,
): Promise<Uint8Array | null> {
  let damage: MoevieError | undefined;
  for (const facts of kept) {
    try {
      return await read(facts);
    } catch (thrown) {
      const error = asMoevieError(thrown);
      if (error.reason !== "STORE_CORRUPT") throw error;
      damage = error;
    }
  }
  if (damage !== undefined) throw damage;
  return null;
}

/** Writes the parts one after another and answers their sha256, hex. Throws DISK_FULL; then nothing is left. */
export async function writeCheckpoint(
  path: string,
  parts: readonly Uint8Array[],
  disk: Disk = SYSTEM_DISK,
): Promise<string> {
  const unfinished = `${path}.part`;
  const hash = createHash("sha256");
  try {
    const file = await disk.open(unfinished, "w", 0o600);
    try {
      for (const slice of parts.flatMap(slicesOf)) {
        hash.update(slice);
        await file.writeFile(slice);
      }
      await file.sync();
    } finally {
      await file.close();
    }
    await disk.rename(unfinished, path);
    await syncFolder(disk, dirname(path));
  } catch (thrown) {
    await disk.rm(unfinished, { force: true }).catch(() => undefined);
    throw diskError(thrown);
  }
  return hash.digest("hex");
}

/** The file's bytes. Throws STORE_CORRUPT when it is missing or not what was written. */
export async function readCheckpoint(
  path: string,
  { sizeBytes, sha256 }: CheckpointFacts,
  disk: Disk = SYSTEM_DISK,
): Promise<Uint8Array> {
  try {
    const file = await disk.open(path);
    try {
      const bytes = new Uint8Array(sizeBytes);
      const hash = createHash("sha256");
      for (const slice of slicesOf(bytes)) {
        const { bytesRead } = await file.read(slice);
        if (bytesRead < slice.length) throw new Error(`${path} ends early`);
        hash.update(slice);
      }
      if (hash.digest("hex") === sha256) return bytes;
      throw new Error(`${path} has another hash`);
    } finally {
      await file.close();
    }
  } catch (cause) {
    const detail = cause instanceof Error ? cause.message : String(cause);
    throw new MoevieError("STORE_CORRUPT", "The job's checkpoint is missing or damaged.", { cause, detail });
  }
}

function slicesOf(bytes: Uint8Array): readonly Uint8Array[] {
  const sliceBytes = limit("tensorChunkBytesMax");
  return Array.from({ length: Math.ceil(bytes.length / sliceBytes) }, (_, at) =>
    bytes.subarray(at * sliceBytes, (at + 1) * sliceBytes),
  );
}
