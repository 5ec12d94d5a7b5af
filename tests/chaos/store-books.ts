// What a job store holds when the cluster that used it has ended: every job ended, by one event, and no file but those that its record
// names. Looks before any sweep first, then has the sweep run as a start of `moevie serve` would: what is there then stays for ever.
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { isFinal, openNatsStore, openSqliteStore, type JobRecord, type JobStore } from "@moevie/job-store";
import { ownerlessChunks } from "../support/nats-objects.ts";

export interface StoreBooks {
  /** What is wrong: jobs that did not end, or not by one event, and what is left for ever. */
  readonly wrong: readonly string[];
  /** What a sweep at the next start removed. */
  readonly swept: readonly string[];
}

/** Far beyond what a run makes. */
const RETENTION = { jobsMax: 1e6, ageMsMax: 1e12, clipsBytesMax: 2 ** 50 };
const SWEEP_MS = 200;
const SWEPT_MS_MAX = 30_000;
const DATA_FILES = /^(jobs\.db(-wal|-shm)?|artefacts|backups|serve\.lock)$/;
const BACKUP_FILES = /^jobs-\d+\.db$/;

/** Of a data folder whose cluster has ended. */
export async function sqliteBooks(data: string): Promise<StoreBooks> {
  const before = filesIn(join(data, "artefacts"));
  const store = await openSqliteStore(join(data, "jobs.db"));
  try {
    const jobs = await allJobs(store);
    const others = readdirSync(data).filter((name) => !DATA_FILES.test(name));
    const backups = existsSync(join(data, "backups")) ? readdirSync(join(data, "backups")) : [];
    const after = filesIn(join(data, "artefacts"));
    return {
      swept: before.filter((name) => !after.includes(name)),
      wrong: [
        ...(await wrongJobs(store, jobs)),
        ...differences(jobs, after),
        ...others.map((name) => `file ${name} in the data folder`),
        ...backups.filter((name) => !BACKUP_FILES.test(name)).map((name) => `file backups/${name}`),
      ],
    };
  } finally {
    await store.close();
  }
}

/** Of a NATS server whose clusters have ended. */
export async function natsBooks(url: string): Promise<StoreBooks> {
  const servers = [url];
  const store = await openNatsStore({ servers });
  let sweeping: JobStore | undefined;
  try {
    const jobs = await allJobs(store);
    const strays = async (): Promise<readonly string[]> => [
      ...differences(jobs, await objectsOf(store)),
      ...(await ownerlessChunks(servers, "moevie")),
    ];
    const before = await strays();
    const wrong = await wrongJobs(store, jobs);
    sweeping = await openNatsStore({ servers }, { retention: RETENTION, sweepMs: SWEEP_MS });
    const endMs = performance.now() + SWEPT_MS_MAX;
    let left = before;
    // A clip that is missing does not come back.
    while (left.some((line) => !line.startsWith("clip ")) && performance.now() < endMs) {
      await pause(SWEEP_MS);
      left = await strays();
    }
    return { swept: before.filter((name) => !left.includes(name)), wrong: [...wrong, ...left] };
  } finally {
    await sweeping?.close();
    await store.close();
  }
}

async function allJobs(store: JobStore): Promise<readonly JobRecord[]> {
  const jobs: JobRecord[] = [];
  for (let pageToken = "", more = true; more; more = pageToken !== "") {
    const page = await store.list({ pageSize: 100, pageToken });
    jobs.push(...page.jobs);
    pageToken = page.nextPageToken;
  }
  return jobs;
}

/** Jobs that run or wait, and those that did not end by one event, the last. */
async function wrongJobs(store: JobStore, jobs: readonly JobRecord[]): Promise<readonly string[]> {
  const wrong: string[] = [];
  for (const { id, state } of jobs) {
    if (!isFinal(state)) wrong.push(`job ${id} is ${state.kind}`);
    const kinds: string[] = [];
    for (let after = 0; ;) {
      const events = await store.eventsAfter(id, after);
      if (events.length === 0) break;
      kinds.push(...events.map((event) => event.state));
      after = events.at(-1)?.sequence ?? after;
    }
    const endings = kinds.filter((kind) => kind !== "queued" && kind !== "running");
    if (endings.length !== 1 || kinds.at(-1) !== state.kind)
      wrong.push(`job ${id} is ${state.kind} with the endings ${endings.join(", ") || "none"}; last ${kinds.at(-1)}`);
  }
  const { queued, running } = await store.counts();
  if (queued + running > 0) wrong.push(`${queued} jobs wait and ${running} run`);
  return wrong;
}

/** Clips that records name and that are not there, and files ID/NAME that no record names. */
function differences(jobs: readonly JobRecord[], files: readonly string[]): readonly string[] {
  const ended = jobs.flatMap(({ id, state }) => (state.kind === "completed" ? [`${id}/${state.token}.`] : []));
  return [
    ...ended.filter((clip) => !files.includes(`${clip}mp4`)).map((clip) => `clip ${clip}mp4 is missing`),
    ...files
      .filter((file) => !ended.includes(file.replace(/(mp4|thumbnail\.jpg|sprites\.jpg|credentials\.json)$/, "")))
      .map((file) => `file ${file}`),
  ];
}

async function objectsOf(store: JobStore): Promise<readonly string[]> {
  const ids = await store.artefacts.ids();
  const names = await Promise.all(
    ids.map(async (id) => (await store.artefacts.names(id)).map((name) => `${id}/${name}`)),
  );
  return names.flat();
}

/** ID/NAME of every file; an empty folder of a job as ID/. */
function filesIn(artefacts: string): readonly string[] {
  return readdirSync(artefacts).flatMap((id) => {
    const names = readdirSync(join(artefacts, id));
    return names.length === 0 ? [`${id}/`] : names.map((name) => `${id}/${name}`);
  });
}
