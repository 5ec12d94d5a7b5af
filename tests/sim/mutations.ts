// Faults planted into what the real code stands on: a fence that is not checked, a condition that is left out, news that is lost. The
// simulator must find each; one that it does not find is a promise that nobody checks.
import { asMoevieError } from "@moevie/contracts";
import type { ArtefactAttempt, JobStore, Lease } from "@moevie/job-store";
import { decodeJob, type NatsParts, type StoredJob } from "@moevie/job-store/parts";
import type { Mutation, MutationScene } from "./sim-cluster.ts";

const LOST_NEWS = 0.3;
const LATE_COMMIT_MS = 60;

/** `target` with some of its members replaced. */
function altered<T extends object>(target: T, members: { readonly [K in keyof T]?: unknown }): T {
  return new Proxy(target, {
    get(of, name) {
      if (Object.hasOwn(members, name)) return members[name as keyof T];
      const value: unknown = Reflect.get(of, name, of);
      return typeof value === "function" ? (value.bind(of) as unknown) : value;
    },
  });
}

/** Writes what `change` makes of a job's record, whatever the record is by now. */
function force({ server, process }: MutationScene, id: string, change: (job: StoredJob) => object): void {
  for (const [subject, message] of server.records.last) {
    if (!subject.endsWith(`.job.${id}`) || message.operation !== undefined) continue;
    const { job } = decodeJob(message.data, message.seq);
    server.writeRecord(process, subject, Buffer.from(JSON.stringify({ ...job, ...change(job) })));
    return;
  }
}

/** The method, with an ear for a lost lease. */
function whenLost<A extends unknown[], T>(
  method: (lease: Lease, ...rest: A) => Promise<T>,
  hear: (lease: Lease, rest: A) => Promise<T> | undefined,
): (lease: Lease, ...rest: A) => Promise<T> {
  return async (lease, ...rest) => {
    try {
      return await method(lease, ...rest);
    } catch (thrown) {
      const instead = asMoevieError(thrown).reason === "LEASE_LOST" ? hear(lease, rest) : undefined;
      if (instead === undefined) throw thrown;
      return await instead;
    }
  };
}

const GOES_ON = { cancelRequested: false };

function withUpdate(
  parts: NatsParts,
  update: (records: NatsParts["records"], key: string, job: StoredJob, revision: number) => Promise<number> | undefined,
): NatsParts {
  const { records } = parts;
  return altered(parts, {
    records: altered(records, {
      update: (key: string, value: Uint8Array, revision: number) => {
        const job = key.startsWith("job.") ? decodeJob(value, revision).job : undefined;
        return (job && update(records, key, job, revision)) ?? records.update(key, value, revision);
      },
    }),
  });
}

function withPublish(
  parts: NatsParts,
  publish: (subject: string, data: unknown) => Promise<unknown> | undefined,
): NatsParts {
  const { js } = parts;
  const altering = (subject: string, data: string, options: object): Promise<unknown> =>
    publish(subject, data) ?? js.publish(subject, data, options);
  return altered(parts, { js: altered(js, { publish: altering }) });
}

/** A watch that leaves out some of what it should tell. */
function forgetful(parts: NatsParts, { world }: MutationScene): NatsParts {
  const silent = withPublish(parts, (subject) =>
    subject.includes(".wake.") ? Promise.resolve({ seq: 0 }) : undefined,
  );
  const get = async (...asked: Parameters<NatsParts["js"]["consumers"]["get"]>): Promise<object> => {
    const consumer = await parts.js.consumers.get(...asked);
    const consume = async (...how: Parameters<typeof consumer.consume>): Promise<object> => {
      const messages = await consumer.consume(...how);
      return altered(messages, {
        async *[Symbol.asyncIterator]() {
          let isCurrent = false;
          for await (const message of messages) {
            if (!isCurrent || !world.chance(LOST_NEWS)) yield message;
            isCurrent ||= message.info.pending === 0;
          }
        },
      } as object);
    };
    return altered(consumer, { consume });
  };
  return altered(silent, { js: altered(silent.js, { consumers: { get } }) });
}

function lateCommit(store: JobStore, { process }: MutationScene): JobStore {
  const { artefacts } = store;
  return altered(store, {
    artefacts: altered(artefacts, {
      async createAttempt(name: Parameters<typeof artefacts.createAttempt>[0]) {
        const attempt = await artefacts.createAttempt(name);
        let sizeBytes = 0;
        return altered<ArtefactAttempt>(attempt, {
          write: (chunk: Uint8Array) => {
            sizeBytes += chunk.byteLength;
            return attempt.write(chunk);
          },
          commit: () => {
            void process.clock.pause(LATE_COMMIT_MS).then(() => attempt.commit().catch(() => undefined));
            return Promise.resolve(sizeBytes);
          },
        });
      },
    }),
  });
}

export const MUTATIONS: readonly Mutation[] = [
  {
    name: "the end of a job is written without its fencing token",
    store: (store, scene) =>
      altered(store, {
        finish: whenLost(store.finish.bind(store), (lease, [outcome]) => {
          const { token, job } = lease;
          const end = { ...outcome, token, startedAtMs: 0, finishedAtMs: 0 };
          force(scene, lease.id, ({ event }) => ({ state: end, event: { ...event, number: event.number + 1 } }));
          return Promise.resolve(job);
        }),
      }),
  },
  {
    name: "leases are observed by the wall clock",
    clock: ({ process: { clock } }) => ({ ...clock, monotonicMs: () => clock.wallMs() }),
  },
  {
    name: "an owner goes on when it is told that its lease is lost",
    store: (store) =>
      altered(store, {
        renew: whenLost(store.renew.bind(store), () => Promise.resolve(GOES_ON)),
        writeProgress: whenLost(store.writeProgress.bind(store), () => Promise.resolve(GOES_ON)),
        saveCheckpoint: whenLost(store.saveCheckpoint.bind(store), () => Promise.resolve(GOES_ON)),
      }),
  },
  {
    name: "a claim is no compare-and-set",
    parts: (parts) =>
      withUpdate(parts, (records, key, job, revision) =>
        job.state.kind === "running" && job.state.token === revision
          ? records.put(key, JSON.stringify(job))
          : undefined,
      ),
  },
  {
    name: "a checkpoint is taken from an owner that lost its lease",
    store: (store, scene) =>
      altered(store, {
        saveCheckpoint: whenLost(store.saveCheckpoint.bind(store), ({ id, token }) => {
          const late = { name: `${token}-99.checkpoint`, sizeBytes: 1, sha256: "" };
          force(scene, id, ({ checkpoints }) => ({ checkpoints: [late, ...checkpoints] }));
          return undefined;
        }),
      }),
  },
  {
    name: "an owner gives back a job that it had lost",
    store: (store, scene) =>
      altered(store, {
        renew: whenLost(store.renew.bind(store), ({ id }) => {
          force(scene, id, () => ({ state: { kind: "queued" } }));
          return undefined;
        }),
      }),
  },
  {
    name: "a repeated submit makes another job",
    store: (store) =>
      altered(store, {
        submit: (spec: Parameters<JobStore["submit"]>[0], options: Parameters<JobStore["submit"]>[1]) => {
          const { requestId: _left, ...rest } = options ?? {};
          return store.submit(spec, rest);
        },
      }),
  },
  {
    name: "a lease that ran out does not count as an attempt",
    parts: (parts) =>
      withUpdate(parts, (records, key, job, revision) =>
        job.state.kind === "queued"
          ? records.update(key, JSON.stringify({ ...job, attempt: Math.max(0, job.attempt - 1) }), revision)
          : undefined,
      ),
  },
  { name: "news of a record are lost without a sign", parts: forgetful },
  { name: "a clip is published before it is stored", store: lateCommit },
  {
    name: "events are published without the condition",
    parts: (parts) =>
      withPublish(parts, (subject, data) =>
        subject.includes(".events.") ? parts.js.publish(subject, data as string) : undefined,
      ),
  },
  {
    name: "a scheduler that comes back takes the leases of all",
    store: (store) =>
      altered(store, {
        async takeBack() {
          for (const owner of ["scheduler a", "scheduler b", "scheduler c"]) await store.takeBack(owner);
          return 0;
        },
      }),
  },
  {
    name: "a damaged checkpoint is taken for sound",
    store: (store) =>
      altered(store, {
        async loadCheckpoint(id: string) {
          const bytes = await store.loadCheckpoint(id);
          // In the last value, whatever the header says.
          if (bytes !== null) bytes[bytes.length - 2] = (bytes.at(-2) ?? 0) ^ 0x10;
          return bytes;
        },
      }),
  },
];
