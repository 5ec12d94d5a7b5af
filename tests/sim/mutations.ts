// Faults planted into what the real code stands on: a fence that is not checked, a condition that is left out, news that is lost. The
// simulator must find each; one that it does not find is a promise that nobody checks.
import { asMoevieError } from "@moevie/contracts";
import type { ArtefactAttempt, JobState, JobStore, Lease } from "@moevie/job-store";
import { decodeJob, type NatsParts, type SqliteRecords, type StoredJob } from "@moevie/job-store/parts";
import type { Mutation, MutationScene } from "./mutation.ts";

const LOST_NEWS = 0.3;
const LATE_COMMIT_MS = 60;
const SEEN_MAX = 100;

type LeaseKey = Parameters<SqliteRecords["renew"]>[0];

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

/** Claims by what waited at an earlier look, whatever became of it. */
function blindClaims(records: SqliteRecords, { ground, process }: MutationScene): SqliteRecords {
  let seen: readonly string[] = [];
  return altered(records, {
    claimNext: (owner: string, leaseMs: number) => {
      const [id] = seen;
      seen = records
        .list(SEEN_MAX, "", false)
        .jobs.filter(({ state }) => state.kind === "queued")
        .map((job) => job.id);
      if (id === undefined || seen.includes(id)) return records.claimNext(owner, leaseMs);
      const job = records.get(id);
      const token = (job.state.kind === "running" ? job.state.token : 0) + 1;
      const state = { kind: "running" as const, owner, token, cancelRequested: false, startedAtMs: 0 };
      ground.force(process, id, { state, attempts: 1 });
      return { id, token, owner, leaseMs, job: { ...job, state } };
    },
  });
}

export const MUTATIONS: readonly Mutation[] = [
  {
    name: "the end of a job is written without its fencing token",
    store: (store, scene) =>
      altered(store, {
        finish: whenLost(store.finish.bind(store), (lease, [outcome]) => {
          const { id, token, job } = lease;
          const state = { ...outcome, token, startedAtMs: 0, finishedAtMs: 0 } as JobState;
          scene.ground.force(scene.process, id, { state });
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
    only: "nats",
    nats: (parts) =>
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
          scene.ground.force(scene.process, id, { checkpoint: `${token}-99.checkpoint` });
          return undefined;
        }),
      }),
  },
  {
    name: "an owner gives back a job that it had lost",
    store: (store, scene) =>
      altered(store, {
        renew: whenLost(store.renew.bind(store), ({ id }) => {
          scene.ground.force(scene.process, id, { state: { kind: "queued" } });
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
    sqlite: (records, { ground, process }) =>
      altered(records, {
        expire: (dead: Parameters<SqliteRecords["expire"]>[0]) => {
          const id = records.expire(dead);
          if (id !== undefined) ground.force(process, id, { attempts: -1 });
          return id;
        },
      }),
    nats: (parts) =>
      withUpdate(parts, (records, key, job, revision) =>
        job.state.kind === "queued"
          ? records.update(key, JSON.stringify({ ...job, attempt: Math.max(0, job.attempt - 1) }), revision)
          : undefined,
      ),
  },
  { name: "news of a record are lost without a sign", only: "nats", nats: forgetful },
  { name: "a clip is published before it is stored", store: lateCommit },
  {
    name: "events are published without the condition",
    only: "nats",
    nats: (parts) =>
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
  {
    name: "a claim does not look whether the job still waits",
    only: "sqlite",
    sqlite: blindClaims,
  },
  {
    name: "a write asks for no fencing token",
    only: "sqlite",
    sqlite: (records) => {
      const tokenNow = ({ id, token }: LeaseKey): LeaseKey => {
        const state = records.filesNeeded([id])[0];
        return { id, token: state?.liveToken ?? token };
      };
      return altered(records, {
        renew: (lease: LeaseKey) => records.renew(tokenNow(lease)),
        writeProgress: (lease: LeaseKey, ...rest: [never]) => records.writeProgress(tokenNow(lease), ...rest),
        saveCheckpoint: (lease: LeaseKey, ...rest: [never]) => records.saveCheckpoint(tokenNow(lease), ...rest),
        finish: (lease: LeaseKey, ...rest: [never]) => records.finish(tokenNow(lease), ...rest),
      });
    },
  },
  {
    name: "files of a lease that is alive count as left over",
    only: "sqlite",
    sqlite: (records) =>
      altered(records, {
        filesNeeded: (ids: readonly string[]) =>
          records.filesNeeded(ids).map((needed) => ({ ...needed, liveToken: undefined })),
      }),
  },
  {
    name: "a claim is charged to nobody",
    only: "sqlite",
    sqlite: (records, { ground, process }) =>
      altered(records, {
        claimNext: (owner: string, leaseMs: number) => {
          const lease = records.claimNext(owner, leaseMs);
          if (lease !== null) ground.force(process, lease.id, { isUncharged: true });
          return lease;
        },
      }),
  },
];
