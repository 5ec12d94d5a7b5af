// Clips, what lies beside them and checkpoints in the object store, each under its attempt's name. An object is there whole or not at
// all; it becomes visible only when the job's record names it. Knows no state of jobs but through `isNeeded`.
import { Readable } from "node:stream";
import { createHash } from "node:crypto";
import type { ObjectInfo } from "@nats-io/obj";
import { MoevieError, limit } from "@moevie/contracts";
import type { Clock } from "@moevie/runtime";
import {
  artefactNames,
  fileMissing,
  type ArtefactAttempt,
  type Artefacts,
  type AttemptName,
  type Companion,
  type OpenArtefact,
} from "./artefact-names.ts";
import type { CheckpointFacts } from "./checkpoint-file.ts";
import { checkpointName, isInPlace, type CheckpointPlace, type LargeCheckpoints } from "./checkpoint-place.ts";
import { withNats } from "./nats-connection.ts";
import type { NatsParts } from "./nats-streams.ts";

/** A follower may be behind the leader by a moment. */
const CHUNK_TRIES_MAX = 40;
const CHUNK_PAUSE_MS = 25;

export interface StoredObject {
  readonly sizeBytes: number;
  /** sha256, hex. */
  readonly sha256: string;
}

export class NatsArtefacts implements Artefacts {
  readonly #parts: NatsParts;
  readonly #isNeeded: (attempt: AttemptName) => Promise<boolean>;
  readonly #clock: Clock;
  readonly #large: LargeCheckpoints | undefined;

  constructor(
    parts: NatsParts,
    isNeeded: (attempt: AttemptName) => Promise<boolean>,
    clock: Clock,
    large?: LargeCheckpoints,
  ) {
    this.#parts = parts;
    this.#clock = clock;
    this.#isNeeded = isNeeded;
    this.#large = large;
  }

  createAttempt(attempt: AttemptName): Promise<ArtefactAttempt> {
    return Promise.resolve(new NatsAttempt(this, attempt, this.#isNeeded));
  }

  async open({ id, token }: AttemptName, file: "mp4" | Companion = "mp4"): Promise<OpenArtefact> {
    const name = objectName(id, `${token}.${file}`);
    const info = await withNats(() => this.#parts.files.info(name));
    if (info === null || info.deleted) throw fileMissing(file, name);
    return { sizeBytes: info.size, read: (range) => Readable.from(this.#bytes(info, range), { objectMode: false }) };
  }

  async names(id: string): Promise<readonly string[]> {
    const names = [...(await this.objects()), ...(await this.inPlace())];
    return names.filter((name) => name.startsWith(`${id}/`)).map((name) => name.slice(id.length + 1));
  }

  async ids(): Promise<readonly string[]> {
    const names = [...(await this.objects()), ...(await this.inPlace())];
    return [...new Set(names.map((name) => name.slice(0, name.indexOf("/"))))];
  }

  /** ID/NAME of all large checkpoints outside NATS; none when no place for them is configured. */
  async inPlace(): Promise<readonly string[]> {
    return (await this.#large?.place.all()) ?? [];
  }

  /** ID/NAME of all objects in NATS: from the subjects, since the client's own list waits half a minute when one goes meanwhile. */
  async objects(): Promise<readonly string[]> {
    const { jsm, names } = this.#parts;
    const prefix = `$O.${names.files}.M.`;
    const { state } = await withNats(() => jsm.streams.info(names.filesStream, { subjects_filter: `${prefix}>` }));
    return Object.keys(state.subjects ?? {}).map((subject) =>
      Buffer.from(subject.slice(prefix.length), "base64url").toString("utf8"),
    );
  }

  /** Stores the stream's bytes whole, or nothing. Throws DISK_FULL and PEER_UNAVAILABLE. */
  async put(id: string, name: string, bytes: ReadableStream<Uint8Array>): Promise<StoredObject> {
    const meta = { name: objectName(id, name), options: { max_chunk_size: limit("natsChunkBytesMax") } };
    const info = await withNats(() => this.#parts.files.put(meta, bytes));
    return { sizeBytes: info.size, sha256: sha256Of(info) };
  }

  /** What a checkpoint of so many bytes is called. */
  checkpointName(token: number, count: number, sizeBytes: number): string {
    return checkpointName(token, count, this.#large !== undefined && sizeBytes >= this.#large.bytesMin);
  }

  async putCheckpoint(id: string, name: string, parts: readonly Uint8Array[]): Promise<CheckpointFacts> {
    if (!isInPlace(name)) return { name, ...(await this.put(id, name, streamOf(parts))) };
    const sizeBytes = parts.reduce((sum, part) => sum + part.byteLength, 0);
    return { name, sizeBytes, sha256: await this.#place(name).put(id, name, parts) };
  }

  async readCheckpoint(id: string, facts: CheckpointFacts): Promise<Uint8Array> {
    if (isInPlace(facts.name)) return await this.#place(facts.name).read(id, facts);
    return await this.readWhole(id, facts.name, facts);
  }

  /** The whole object. Throws STORE_CORRUPT when it is missing or not what the record says. */
  async readWhole(id: string, name: string, wanted: StoredObject): Promise<Uint8Array> {
    const info = await withNats(() => this.#parts.files.info(objectName(id, name)));
    if (info === null || info.deleted || info.size !== wanted.sizeBytes || sha256Of(info) !== wanted.sha256)
      throw damaged(`${name} is missing or another`);
    const bytes = new Uint8Array(info.size);
    let at = 0;
    for await (const chunk of this.#bytes(info)) {
      bytes.set(chunk, at);
      at += chunk.byteLength;
    }
    return bytes;
  }

  /** Removes the named objects, whichever of them there are, leaving no marker behind. */
  async remove(id: string, names: readonly string[]): Promise<void> {
    const { files, jsm, names: streams } = this.#parts;
    for (const name of names.filter((one) => !isInPlace(one))) {
      const info = await withNats(() => files.info(objectName(id, name)));
      if (info === null) continue;
      // This very object, by its number and its parts: a removal that arrives late must not take what has its name by then.
      const meta = { filter: `$O.${streams.files}.M.${encodedName(info.name)}`, seq: info.revision + 1 };
      await withNats(async () => {
        await jsm.streams.purge(streams.filesStream, meta);
        await jsm.streams.purge(streams.filesStream, { filter: `$O.${streams.files}.C.${info.nuid}` });
      });
    }
    // A process without the place leaves them to the sweep of one that has it.
    const large = names.filter(isInPlace);
    if (large.length > 0) await this.#large?.place.remove(id, large);
  }

  #place(name: string): CheckpointPlace {
    if (this.#large !== undefined) return this.#large.place;
    throw damaged(`${name} lies where MOEVIE_CHECKPOINTS said when it was saved; it is not set now`);
  }

  /** One chunk at a time, so that a slow reader holds one in memory. A whole read is checked against the object's sha256. */
  async *#bytes(
    info: ObjectInfo,
    range?: { readonly start: number; readonly end: number },
  ): AsyncGenerator<Uint8Array> {
    const { start, end } = range ?? { start: 0, end: info.size - 1 };
    const hash = range === undefined ? createHash("sha256") : undefined;
    let sequence = 1;
    for (let at = 0; at <= end && at < info.size;) {
      const chunk = await withNats(() => this.#chunk(info, sequence));
      sequence = chunk.seq + 1;
      hash?.update(chunk.data);
      const from = Math.max(0, start - at);
      const to = Math.min(chunk.data.byteLength, end + 1 - at);
      at += chunk.data.byteLength;
      if (from < to) yield chunk.data.subarray(from, to);
    }
    if (hash !== undefined && hash.digest("hex") !== sha256Of(info)) throw damaged(`${info.name} has another hash`);
  }

  async #chunk(info: ObjectInfo, sequence: number): Promise<{ readonly seq: number; readonly data: Uint8Array }> {
    const { jsm, names } = this.#parts;
    const query = { seq: sequence, next_by_subj: `$O.${names.files}.C.${info.nuid}` };
    for (let tries = 1; tries <= CHUNK_TRIES_MAX; tries += 1) {
      const found = await jsm.direct.getMessage(names.filesStream, query);
      if (found !== null) return found;
      await this.#clock.pause(CHUNK_PAUSE_MS);
    }
    throw damaged(`${info.name} lacks a part`);
  }
}

class NatsAttempt implements ArtefactAttempt {
  readonly #artefacts: NatsArtefacts;
  readonly #attempt: AttemptName;
  readonly #isNeeded: (attempt: AttemptName) => Promise<boolean>;
  readonly #channel = new ChunkChannel();
  readonly #stored: Promise<StoredObject>;

  constructor(artefacts: NatsArtefacts, attempt: AttemptName, isNeeded: (attempt: AttemptName) => Promise<boolean>) {
    this.#artefacts = artefacts;
    this.#attempt = attempt;
    this.#isNeeded = isNeeded;
    this.#stored = artefacts.put(attempt.id, `${attempt.token}.mp4`, this.#channel.readable);
    this.#stored.catch(() => undefined);
  }

  /** Resolves when the object store took it: a slow server slows the writer. */
  async write(chunk: Uint8Array): Promise<void> {
    await Promise.race([this.#channel.write(chunk), this.#failure()]);
  }

  async writeCompanion(name: Companion, bytes: Uint8Array | string): Promise<void> {
    const { id, token } = this.#attempt;
    await this.#artefacts.put(id, `${token}.${name}`, streamOf([Buffer.from(bytes)]));
  }

  async commit(): Promise<number> {
    this.#channel.close();
    const { sizeBytes } = await this.#stored;
    // A job that left this lease meanwhile has tidied already: what came later is nobody's.
    if (!(await this.#isNeeded(this.#attempt))) await this.#remove();
    return sizeBytes;
  }

  async discard(): Promise<void> {
    this.#channel.fail(new Error("discarded"));
    await this.#stored.catch(() => undefined);
    await this.#remove();
  }

  async #remove(): Promise<void> {
    await this.#artefacts.remove(this.#attempt.id, artefactNames(this.#attempt.token));
  }

  #failure(): Promise<never> {
    return this.#stored.then(() => new Promise<never>(() => undefined));
  }
}

/** A stream that is written to chunk by chunk, each when the reader asks for it. Node's TransformStream cannot be given up while it is full. */
class ChunkChannel {
  readonly readable: ReadableStream<Uint8Array>;
  #controller: ReadableStreamDefaultController<Uint8Array> | undefined;
  #demand = Promise.withResolvers<void>();

  constructor() {
    const start = (controller: ReadableStreamDefaultController<Uint8Array>): void => {
      this.#controller = controller;
    };
    this.readable = new ReadableStream<Uint8Array>({ start, pull: () => this.#demand.resolve() }, { highWaterMark: 0 });
  }

  async write(chunk: Uint8Array): Promise<void> {
    await this.#demand.promise;
    this.#demand = Promise.withResolvers<void>();
    this.#controller?.enqueue(chunk);
  }

  close(): void {
    this.#controller?.close();
  }

  fail(error: Error): void {
    this.#controller?.error(error);
  }
}

export function streamOf(parts: readonly Uint8Array[]): ReadableStream<Uint8Array> {
  const sliceBytes = limit("natsChunkBytesMax");
  let part = 0;
  let at = 0;
  return new ReadableStream<Uint8Array>({
    pull(controller) {
      while (part < parts.length && at >= (parts[part]?.byteLength ?? 0)) {
        part += 1;
        at = 0;
      }
      const bytes = parts[part];
      if (bytes === undefined) return controller.close();
      controller.enqueue(bytes.subarray(at, at + sliceBytes));
      at += sliceBytes;
    },
  });
}

function objectName(id: string, name: string): string {
  return `${id}/${name}`;
}

/** As the client encodes names in subjects: base64url with padding. */
function encodedName(name: string): string {
  return Buffer.from(name).toString("base64").replaceAll("+", "-").replaceAll("/", "_");
}

function sha256Of(info: ObjectInfo): string {
  return Buffer.from(info.digest.replace(/^SHA-256=/, ""), "base64url").toString("hex");
}

function damaged(detail: string): MoevieError {
  return new MoevieError("STORE_CORRUPT", "A file of the job is missing or damaged.", { detail });
}
