// Where checkpoints lie that are too large for the NATS object store: a folder that all schedulers share, or a bucket behind the S3 API.
// The job's record stays the only thing that makes one visible; a place knows no jobs.
import type { CheckpointFacts } from "./checkpoint-file.ts";

/** Each file is there whole or not at all. All throw PEER_UNAVAILABLE, DISK_FULL, CONFIG_INVALID. */
export interface CheckpointPlace {
  /** Stores the parts one after another and answers their sha256, hex. */
  put(id: string, name: string, parts: readonly Uint8Array[]): Promise<string>;
  /** The whole file. Throws STORE_CORRUPT when it is missing or not what the record says. */
  read(id: string, facts: CheckpointFacts): Promise<Uint8Array>;
  /** Removes the named files of a job, whichever of them there are. */
  remove(id: string, names: readonly string[]): Promise<void>;
  /** All files, as ID/NAME. */
  all(): Promise<readonly string[]>;
}

/** The place, and from how many bytes on a checkpoint goes there. */
export interface LargeCheckpoints {
  readonly place: CheckpointPlace;
  readonly bytesMin: number;
}

const LARGE = ".large.checkpoint";

/** What a lease's checkpoint is called; the name says which of the two it lies in. */
export function checkpointName(token: number, count: number, isInPlace: boolean): string {
  return `${token}-${count}${isInPlace ? LARGE : ".checkpoint"}`;
}

const PLACED = /^[0-9a-f-]{36}\/[^/]*\.large\.checkpoint[^/]*$/;

/** Whether ID/NAME is what a store calls its checkpoints. */
export function isPlaced(key: string): boolean {
  return PLACED.test(key);
}

/** Does the file lie in the place? What a dead writer left unfinished there does, too. */
export function isInPlace(name: string): boolean {
  return name.includes(LARGE);
}
