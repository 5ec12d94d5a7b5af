// The streams and buckets of the NATS store: what they are called, how they are made, and what of those found differs from that.
// Makes what is missing; never changes and never deletes what is there.
import {
  AckPolicy,
  DiscardPolicy,
  RetentionPolicy,
  StorageType,
  jetstream,
  jetstreamManager,
  type Consumer,
  type JetStreamClient,
  type JetStreamManager,
  type StreamConfig,
} from "@nats-io/jetstream";
import { Kvm, type KV } from "@nats-io/kv";
import { Objm, setSha256Backend, type ObjectStore } from "@nats-io/obj";
import { nanos, type NatsConnection } from "@nats-io/transport-node";
import { limit } from "@moevie/contracts";

interface NatsNames {
  /** Bucket of the records. */
  readonly records: string;
  readonly recordsStream: string;
  readonly wakeStream: string;
  readonly eventStream: string;
  /** Bucket of the files. */
  readonly files: string;
  readonly filesStream: string;
  readonly wakeSubject: (id: string) => string;
  readonly eventSubject: (id: string) => string;
}

export function natsNames(prefix: string): NatsNames {
  return {
    records: `${prefix}-records`,
    recordsStream: `KV_${prefix}-records`,
    wakeStream: `${prefix}-wake`,
    eventStream: `${prefix}-events`,
    files: `${prefix}-files`,
    filesStream: `OBJ_${prefix}-files`,
    wakeSubject: (id) => `${prefix}.wake.${id}`,
    eventSubject: (id) => `${prefix}.events.${id}`,
  };
}

export interface NatsParts {
  readonly names: NatsNames;
  readonly connection: NatsConnection;
  readonly js: JetStreamClient;
  readonly jsm: JetStreamManager;
  readonly records: KV;
  readonly files: ObjectStore;
  /** Shared by all claimants. */
  readonly wakeConsumer: Consumer;
}

// Of the whole process: the client hashes files in JavaScript otherwise, at a tenth of the rate.
setSha256Backend("native");

const CLAIMANTS = "claimants";
const STREAM_NAME_IN_USE = 10058;
const CONSUMER_NOT_FOUND = 10014;

/** Opens what is there and makes what is not. `onDrift` hears of every setting found that differs from the one meant. */
export async function openStreams(
  connection: NatsConnection,
  prefix: string,
  replicas: number,
  onDrift: (line: string) => void,
): Promise<NatsParts> {
  const names = natsNames(prefix);
  const timeout = limit("natsCallMsMax");
  const js = jetstream(connection, { timeout });
  const jsm = await jetstreamManager(connection, { timeout });
  const base = { storage: StorageType.File, num_replicas: replicas } as const;
  const meant: readonly (Partial<StreamConfig> & { readonly name: string })[] = [
    {
      ...base,
      name: names.wakeStream,
      subjects: [names.wakeSubject("*")],
      retention: RetentionPolicy.Workqueue,
      discard: DiscardPolicy.Old,
      max_msgs_per_subject: 1,
      allow_direct: false,
    },
    {
      ...base,
      name: names.eventStream,
      subjects: [names.eventSubject("*")],
      retention: RetentionPolicy.Limits,
      discard: DiscardPolicy.New,
      max_msgs_per_subject: limit("eventsPerJobMax"),
      // Reads by the leader only: a follower that is behind would show a gap.
      allow_direct: false,
    },
  ];
  for (const config of meant) await ensureStream(jsm, config, onDrift);
  const records = await new Kvm(js).create(names.records, {
    replicas,
    storage: StorageType.File,
    history: 1,
    allow_direct: false,
  });
  await reportDrift(
    jsm,
    {
      ...base,
      name: names.recordsStream,
      max_msgs_per_subject: 1,
      allow_direct: false,
      retention: RetentionPolicy.Limits,
    },
    onDrift,
  );
  const files = await new Objm(js).create(names.files, { replicas, storage: StorageType.File });
  await reportDrift(
    jsm,
    { ...base, name: names.filesStream, retention: RetentionPolicy.Limits, discard: DiscardPolicy.New },
    onDrift,
  );
  await ensureClaimants(jsm, names.wakeStream, onDrift);
  const wakeConsumer = await js.consumers.get(names.wakeStream, CLAIMANTS);
  return { names, connection, js, jsm, records, files, wakeConsumer };
}

/** Removes a key at its revision or before without leaving a marker: for keys that nobody watches. */
export async function removeKey({ jsm, names }: NatsParts, key: string, revision?: number): Promise<void> {
  const filter = `$KV.${names.records}.${key}`;
  await jsm.streams.purge(names.recordsStream, { filter, ...(revision === undefined ? {} : { seq: revision + 1 }) });
}

async function ensureStream(
  jsm: JetStreamManager,
  config: Partial<StreamConfig> & { readonly name: string },
  onDrift: (line: string) => void,
): Promise<void> {
  try {
    await jsm.streams.info(config.name);
  } catch (thrown) {
    if (!isMissing(thrown)) throw thrown;
    await jsm.streams.add(config).catch((late: unknown) => {
      // Another process made it a moment ago.
      if (codeOf(late) !== STREAM_NAME_IN_USE) throw late;
    });
  }
  await reportDrift(jsm, config, onDrift);
}

async function ensureClaimants(jsm: JetStreamManager, stream: string, onDrift: (line: string) => void): Promise<void> {
  const meant = {
    ack_policy: AckPolicy.Explicit,
    ack_wait: nanos(limit("natsWakeMsMax")),
    max_ack_pending: limit("jobsQueuedMax"),
  };
  const found = await jsm.consumers.info(stream, CLAIMANTS).catch((thrown: unknown) => {
    if (codeOf(thrown) !== CONSUMER_NOT_FOUND) throw thrown;
    return jsm.consumers.add(stream, { durable_name: CLAIMANTS, ...meant });
  });
  tellDrift(`consumer ${CLAIMANTS} of ${stream}`, found.config, meant, onDrift);
}

async function reportDrift(
  jsm: JetStreamManager,
  meant: Partial<StreamConfig> & { readonly name: string },
  onDrift: (line: string) => void,
): Promise<void> {
  tellDrift(`stream ${meant.name}`, (await jsm.streams.info(meant.name)).config, meant, onDrift);
}

/** Servers leave out what is false. */
function tellDrift<T extends object>(what: string, found: T, meant: Partial<T>, onDrift: (line: string) => void): void {
  for (const [key, value] of Object.entries(meant)) {
    const has = found[key as keyof T] ?? (typeof value === "boolean" ? false : undefined);
    if (JSON.stringify(has) !== JSON.stringify(value))
      onDrift(`${what}: ${key} is ${JSON.stringify(has)}, meant is ${JSON.stringify(value)}`);
  }
}

function codeOf(thrown: unknown): number | undefined {
  return (thrown as { readonly code?: number } | undefined)?.code;
}

const STREAM_NOT_FOUND = 10059;

function isMissing(thrown: unknown): boolean {
  return codeOf(thrown) === STREAM_NOT_FOUND;
}
