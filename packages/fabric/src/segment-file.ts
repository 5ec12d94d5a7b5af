// The file of a segment: made by a router, opened by a shard, without a name as soon as both have it, so that nothing is left behind
// whoever dies. Each end proves to the other that they see the same memory. Knows no rows.
import { randomBytes } from "node:crypto";
import { closeSync, constants, fstatSync, ftruncateSync, openSync, readdirSync, unlinkSync, writeSync } from "node:fs";
import { isAbsolute, join } from "node:path";
import { MoevieError, limit } from "@moevie/contracts";
import { fileMapper } from "./mapped-memory.ts";
import type { MappedMemory } from "./mapped-memory.ts";

/** Linux's own memory-backed folder. */
export const SEGMENT_FOLDER = "/dev/shm";
const NO_FOLDER = "none";
/** Where rows may begin; in front of it lie the two proofs. */
export const SEGMENT_ROWS_AT = 4096;
const PROOF_BYTES = 16;
const NAME = /^moevie-[0-9a-f]{32}\.segment$/;
const NAME_BYTES = 47;
/** Bytes of an offer: u64 size, the proof that the shard writes into the segment, the file's name. */
const OFFER_BYTES = 8 + PROOF_BYTES + NAME_BYTES;
/** Files looked at in one clean-up. */
const STALE_FILES_MAX = 1000;
const { O_CREAT, O_EXCL, O_NOFOLLOW, O_RDWR } = constants;

/** A segment that this router made. */
export interface OfferedSegment {
  readonly memory: MappedMemory;
  readonly bytes: number;
  /** Stays open, and with it the lock that tells a clean-up that the maker lives. */
  readonly descriptor: number;
  /** What the shard is told. The router's own proof is in the segment alone. */
  readonly offer: Buffer;
  /** True when `answer` is the router's proof, read by the shard, and the shard's own is in the segment. */
  proven(answer: Uint8Array): boolean;
  /** Takes the name away; the memory stays. */
  unlink(): void;
}

/** The folder that a setting names, or undefined for none. Throws CONFIG_INVALID for anything but an absolute path. */
export function parseSegmentFolder(name: string, value: string): string | undefined {
  if (value === NO_FOLDER) return undefined;
  if (isAbsolute(value)) return value;
  throw new MoevieError("CONFIG_INVALID", `${name} is "${value}"; allowed: an absolute path, or ${NO_FOLDER}`);
}

/** Makes a segment in `folder`; it takes memory as it is used. Throws what the system says. */
export async function offerSegment(folder: string): Promise<OfferedSegment> {
  const mapper = await fileMapper();
  const name = `moevie-${randomBytes(16).toString("hex")}.segment`;
  const path = join(folder, name);
  const bytes = SEGMENT_ROWS_AT + limit("shardCreditBytes");
  const descriptor = openSync(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600);
  const unlink = (): void => removeFile(path);
  try {
    // A clean-up that came in between took the name away, and nobody will find it.
    if (!mapper.lock(descriptor)) throw new Error("a new segment is locked");
    ftruncateSync(descriptor, bytes);
    writeSync(descriptor, new Uint8Array(SEGMENT_ROWS_AT), 0, SEGMENT_ROWS_AT, 0);
    const [own, theirs] = [randomBytes(PROOF_BYTES), randomBytes(PROOF_BYTES)];
    const memory = mapper.map(descriptor, bytes);
    new Uint8Array(memory.buffer).set(own);
    const proven = (answer: Uint8Array): boolean =>
      own.equals(answer) && theirs.equals(new Uint8Array(memory.buffer, PROOF_BYTES, PROOF_BYTES));
    const size = Buffer.alloc(8);
    size.writeBigUInt64LE(BigInt(bytes));
    const offer = Buffer.concat([size, theirs, Buffer.from(name, "latin1")]);
    return { memory, bytes, descriptor, offer, proven, unlink };
  } catch (thrown) {
    unlink();
    closeSync(descriptor);
    throw thrown;
  }
}

export interface JoinedSegment {
  readonly memory: MappedMemory;
  readonly bytes: number;
  /** The router's, for the answer. */
  readonly proof: Buffer;
}

/** Opens the segment that a router offers, and writes the shard's proof. Throws when it is not in `folder` or not sound. */
export async function joinSegment(folder: string, offer: Buffer): Promise<JoinedSegment> {
  const mapper = await fileMapper();
  const name = offer.toString("latin1", 8 + PROOF_BYTES);
  const bytes = offer.length === OFFER_BYTES ? Number(offer.readBigUInt64LE()) : 0;
  if (!NAME.test(name) || bytes <= SEGMENT_ROWS_AT || bytes > SEGMENT_ROWS_AT + limit("shardCreditBytes"))
    throw new Error("the offer of a segment is not sound");
  const descriptor = openSync(join(folder, name), O_RDWR | O_NOFOLLOW);
  try {
    const facts = fstatSync(descriptor);
    if (!facts.isFile() || facts.size !== bytes) throw new Error(`the segment has ${facts.size} bytes, not ${bytes}`);
    const memory = mapper.map(descriptor, bytes);
    const proof = Buffer.from(new Uint8Array(memory.buffer, 0, PROOF_BYTES));
    new Uint8Array(memory.buffer).set(offer.subarray(8, 8 + PROOF_BYTES), PROOF_BYTES);
    return { memory, bytes, proof };
  } finally {
    closeSync(descriptor);
  }
}

/** Removes segments whose maker is dead: it would hold their lock, in whatever container it runs. Answers how many. */
export async function removeStaleSegments(folder: string): Promise<number> {
  const mapper = await fileMapper();
  const names = readdirSync(folder).filter((each) => NAME.test(each));
  return names.slice(0, STALE_FILES_MAX).filter((name) => {
    const path = join(folder, name);
    let descriptor: number | undefined;
    try {
      descriptor = openSync(path, O_RDWR | O_NOFOLLOW);
      if (!mapper.lock(descriptor)) return false;
      unlinkSync(path);
      return true;
    } catch {
      // Another user's, or gone by now.
      return false;
    } finally {
      if (descriptor !== undefined) closeSync(descriptor);
    }
  }).length;
}

function removeFile(path: string): void {
  try {
    unlinkSync(path);
  } catch {
    // Gone already.
  }
}
