// What the job store holds of a NATS client, over a simulated link: the same calls, the same answers, the same errors.
import { createHash } from "node:crypto";
import { natsNames, type NatsParts } from "@moevie/job-store/parts";
import type { Link } from "./sim-link.ts";
import type { SimServer, Watcher } from "./sim-server.ts";
import type { SimStream, StreamMessage } from "./sim-stream.ts";

const HEARTBEATS_MISSED_MS = 400;
const CHUNK_BYTES = 16_384;

interface FileInfo {
  readonly name: string;
  readonly nuid: string;
  readonly size: number;
  readonly digest: string;
  readonly deleted: boolean;
  readonly revision?: number;
}

const names = natsNames("sim");
const META = `$O.${names.files}.M.`;
const CHUNK = `$O.${names.files}.C.`;
const RECORD = `$KV.${names.records}.`;

function nothing(): void {
  // Replaced before it is called.
}

/** A client of `server` in the link's process. */
export function simNats(server: SimServer, link: Link): NatsParts {
  const { process } = link;
  const streams: Record<string, SimStream> = {
    [names.recordsStream]: server.records,
    [names.eventStream]: server.events,
    [names.filesStream]: server.files,
  };
  const streamOf = (name: string): SimStream => {
    const stream = streams[name];
    if (stream === undefined) throw new Error(`no stream ${name}`);
    return stream;
  };
  const parts = {
    names,
    connection: connectionOf(link),
    records: recordsOf(server, link),
    files: filesOf(server, link),
    js: {
      publish: (subject: string, data: string, options?: { readonly headers: { get(name: string): string } }) =>
        link.call(() => {
          if (subject === names.wakeSubject(subject.slice(subject.lastIndexOf(".") + 1))) {
            server.wake(subject);
            return { seq: 0 };
          }
          const expected = options?.headers.get("Nats-Expected-Last-Subject-Sequence") ?? "";
          const bytes = Buffer.from(data);
          return { seq: server.events.publish(subject, bytes, expected === "" ? undefined : Number(expected)).seq };
        }),
      consumers: { get: () => Promise.resolve(recordsConsumer(server, link)) },
    },
    jsm: {
      streams: {
        getMessage: (name: string, query: MessageQuery) => link.call(() => found(streamOf(name), query)),
        info: (name: string, query: { readonly subjects_filter: string }) =>
          link.call(() => ({
            state: { subjects: streamOf(name).subjects(query.subjects_filter.replace(/[*>]$/, "")) },
          })),
        purge: (name: string, query: { readonly filter: string; readonly seq?: number }) =>
          link.call(() => streamOf(name).purge(query.filter, query.seq)),
      },
      direct: {
        getMessage: (name: string, query: MessageQuery) => link.call(() => found(streamOf(name), query)),
      },
    },
    wakeConsumer: {
      next: ({ expires }: { readonly expires: number }) =>
        new Promise((resolve) => {
          const { world } = process;
          const takeBack = server.pull((message) => {
            const deliver = (): void => process.deliver(() => resolve(wakeMessage(server, link, message)));
            if (!link.isLost) world.after(link.delayMs(), deliver);
          });
          world.after(expires, () => {
            takeBack();
            process.deliver(() => resolve(null));
          });
        }),
    },
  };
  return parts as unknown as NatsParts;
}

type MessageQuery =
  | { readonly last_by_subj: string; readonly next_by_subj?: never }
  | { readonly seq: number; readonly next_by_subj: string; readonly last_by_subj?: never };

function found(stream: SimStream, query: MessageQuery): object | null {
  const message =
    query.last_by_subj === undefined ? stream.next(query.next_by_subj, query.seq) : stream.last.get(query.last_by_subj);
  if (message === undefined) return null;
  return { ...message, json: () => JSON.parse(Buffer.from(message.data).toString("utf8")) as unknown };
}

function wakeMessage(server: SimServer, link: Link, message: StreamMessage): object {
  const send = (work: () => void): void => void link.call(work).catch(() => undefined);
  return {
    subject: message.subject,
    ack: () => send(() => server.acknowledge(message)),
    nak: () => send(() => server.refuse(message)),
  };
}

function connectionOf(link: Link): object {
  return {
    closed: () => new Promise(() => undefined),
    flush: () => Promise.resolve(),
    close: () => Promise.resolve(),
    status: () => statuses((hear) => link.onStatus((type) => hear({ type }))),
  };
}

/** A queue that is heard one after another, until `end`. */
function statuses<T>(listen: (hear: (value: T) => void, end: () => void) => void): AsyncIterable<T> {
  const waiting: T[] = [];
  let isEnded = false;
  let wake = nothing;
  listen(
    (value) => {
      waiting.push(value);
      wake();
    },
    () => {
      isEnded = true;
      wake();
    },
  );
  return {
    async *[Symbol.asyncIterator]() {
      for (;;) {
        const next = waiting.shift();
        if (next !== undefined) yield next;
        else if (isEnded) return;
        else await new Promise<void>((resolve) => (wake = resolve));
      }
    },
  };
}

function entryOf(message: StreamMessage): object {
  return {
    key: message.subject.slice(RECORD.length),
    value: message.data,
    revision: message.seq,
    operation: message.operation ?? "PUT",
    json: () => JSON.parse(Buffer.from(message.data).toString("utf8")) as unknown,
  };
}

function recordsOf(server: SimServer, link: Link): object {
  const write = (key: string, value: Uint8Array | string, expected?: number): Promise<number> =>
    link.call(() => server.writeRecord(link.process, RECORD + key, Buffer.from(value), expected).seq);
  return {
    get: (key: string) =>
      link.call(() => {
        const message = server.records.last.get(RECORD + key);
        return message === undefined ? null : entryOf(message);
      }),
    create: (key: string, value: Uint8Array) => write(key, value, 0),
    update: (key: string, value: Uint8Array, revision: number) => write(key, value, revision),
    put: (key: string, value: Uint8Array) => write(key, value),
    purge: (key: string, { previousSeq }: { readonly previousSeq: number }) =>
      link.call(() => void server.writeRecord(link.process, RECORD + key, new Uint8Array(), previousSeq, "PURGE")),
  };
}

/** As the client encodes names in subjects: base64url with padding. */
function subjectOf(name: string): string {
  return META + Buffer.from(name).toString("base64").replaceAll("+", "-").replaceAll("/", "_");
}

function filesOf(server: SimServer, link: Link): object {
  const info = (name: string): FileInfo | null => {
    const message = server.files.last.get(subjectOf(name));
    if (message === undefined) return null;
    return { ...(JSON.parse(Buffer.from(message.data).toString("utf8")) as FileInfo), revision: message.seq };
  };
  const putInfo = (of: FileInfo): void => {
    const subject = subjectOf(of.name);
    server.files.purge(subject);
    server.files.publish(subject, Buffer.from(JSON.stringify(of)));
  };
  return {
    info: (name: string) => link.call(() => info(name)),
    async put({ name }: { readonly name: string }, bytes: ReadableStream<Uint8Array>): Promise<FileInfo> {
      const nuid = `n${server.files.publish("$none", new Uint8Array()).seq}`;
      const hash = createHash("sha256");
      let size = 0;
      // The client takes the reader and does not give the stream up when it fails.
      const reader = bytes.getReader();
      for (let { value } = await reader.read(); value !== undefined; { value } = await reader.read())
        for (let at = 0; at < value.byteLength; at += CHUNK_BYTES) {
          const chunk = value.slice(at, at + CHUNK_BYTES);
          hash.update(chunk);
          size += chunk.byteLength;
          await link.call(() => chunkOnce(server, CHUNK + nuid, chunk, size));
        }
      const digest = `SHA-256=${hash.digest("base64url")}=`;
      const made = { name, nuid, size, digest, deleted: false };
      link.process.writes();
      await link.call(() => {
        const before = info(name);
        putInfo(made);
        if (before !== null && before.nuid !== nuid) server.files.purge(CHUNK + before.nuid);
      });
      return made;
    },
  };
}

/** Chunks of one writer come in order; one that comes twice is kept once, as its message id does on a server. */
function chunkOnce(server: SimServer, subject: string, chunk: Uint8Array, endsAt: number): void {
  let size = 0;
  for (const message of server.files.messages.values())
    if (message.subject === subject) size += message.data.byteLength;
  if (size + chunk.byteLength === endsAt) server.files.publish(subject, chunk);
}

interface RecordMessage {
  readonly subject: string;
  readonly seq: number;
  readonly data: Uint8Array;
  readonly headers: { has(name: string): boolean };
  readonly info: { readonly pending: number };
}

function recordsConsumer(server: SimServer, link: Link): object {
  const { world } = link.process;
  const filter = `${RECORD}job.`;
  const initial = (): StreamMessage[] =>
    [...server.records.last.values()]
      .filter(({ subject }) => subject.startsWith(filter))
      .sort((one, other) => one.seq - other.seq);
  let snapshot: StreamMessage[] = [];
  let buffer: StreamMessage[] | undefined = [];
  const watcher: Watcher & { hear: (message: StreamMessage) => void } = {
    filter,
    hear: (message) => buffer?.push(message),
  };
  return {
    info: () =>
      link.call(() => {
        snapshot = initial();
        server.watchers.add(watcher);
        return { num_pending: snapshot.length };
      }),
    consume: () => {
      let lastMs = 0;
      let isBroken = false;
      const beats = statuses<{ type: string }>((hear) =>
        link.onCut(() => {
          isBroken = true;
          server.watchers.delete(watcher);
          world.after(HEARTBEATS_MISSED_MS, () => link.process.deliver(() => hear({ type: "heartbeats_missed" })));
        }),
      );
      let end = nothing;
      const messages = statuses<RecordMessage>((hear, finish) => {
        end = finish;
        const send = (message: StreamMessage, pending: number): void => {
          // One connection: in order, and either all or nothing more.
          lastMs = Math.max(lastMs, world.nowMs + link.delayMs());
          world.after(lastMs - world.nowMs, () => {
            if (isBroken) return;
            link.process.deliver(() =>
              hear({ ...message, headers: { has: () => message.operation !== undefined }, info: { pending } }),
            );
          });
        };
        const first = [...snapshot, ...(buffer ?? [])];
        first.forEach((message, at) => send(message, first.length - 1 - at));
        buffer = undefined;
        (watcher as { hear: (message: StreamMessage) => void }).hear = (message) => send(message, 0);
      });
      const close = (): void => {
        server.watchers.delete(watcher);
        end();
      };
      return Promise.resolve(Object.assign(messages, { status: () => beats, close }));
    },
  };
}
