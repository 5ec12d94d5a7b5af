// What the files of a job are called and what every store offers for them, wherever it keeps them. No files here.
import type { Readable } from "node:stream";
import { MoevieError } from "@moevie/contracts";

/** What may lie beside a clip. */
export const COMPANIONS = ["thumbnail.jpg", "sprites.jpg", "credentials.json"] as const;
export type Companion = (typeof COMPANIONS)[number];

/** Which attempt: a lease is one. */
export interface AttemptName {
  readonly id: string;
  readonly token: number;
}

/** A clip while its scheduler writes it. All throw DISK_FULL when there is no room. */
export interface ArtefactAttempt {
  write(chunk: Uint8Array): Promise<void>;
  /** A small file beside the clip, whole and durable. */
  writeCompanion(name: Companion, bytes: Uint8Array | string): Promise<void>;
  /** Makes the bytes durable; the job's `finish` makes them visible. Answers the size. */
  commit(): Promise<number>;
  discard(): Promise<void>;
}

export interface OpenArtefact {
  readonly sizeBytes: number;
  /** Bytes from `start` to `end`, both included. */
  read(range?: { readonly start: number; readonly end: number }): Readable;
}

export interface Artefacts {
  /** A new file for this lease's clip; what an earlier call with the same lease wrote is gone. */
  createAttempt(attempt: AttemptName): Promise<ArtefactAttempt>;
  /** A file of an attempt; callers pass the token the finished record names. Throws VIDEO_NOT_READY when it is gone. */
  open(attempt: AttemptName, file?: "mp4" | Companion): Promise<OpenArtefact>;
  /** Names of the job's files. */
  names(id: string): Promise<readonly string[]>;
  /** Ids of jobs that have files. */
  ids(): Promise<readonly string[]>;
}

/** Names of all that a finished attempt may have. */
export function artefactNames(token: number): readonly string[] {
  return ["mp4", ...COMPANIONS].map((file) => `${token}.${file}`);
}

/** What a file that is not there is told as. */
export function fileMissing(file: string, detail: string): MoevieError {
  return new MoevieError("VIDEO_NOT_READY", `The clip's ${file} is not in the store.`, { detail });
}
