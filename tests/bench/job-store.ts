// How fast both job stores take, hand out, keep and end jobs, and how fast checkpoints go in and out; and what idle claimants cost.
//   node tests/bench/job-store.ts [JOBS]
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  openCheckpointBucket,
  openCheckpointFolder,
  openNatsStore,
  openSqliteStore,
  type JobStore,
  type LargeCheckpoints,
} from "@moevie/job-store";
import { SPEC } from "@moevie/job-store/contract-suite";
import { NatsServer, startNatsCluster } from "../support/nats-server.ts";
import { S3Server } from "../support/s3-server.ts";

const JOBS = Number(process.argv[2] ?? 300);
const CLAIM = { owner: "bench", leaseMs: 600_000 };
const CHECKPOINT_BYTES = 32 * 2 ** 20;
const IDLE_CLAIMANTS = 8;
const LARGE_RUNS = 5;

async function timed(what: string, count: number, work: () => Promise<void>): Promise<void> {
  const startMs = performance.now();
  await work();
  const ms = performance.now() - startMs;
  console.log(`  ${what}: ${(ms / count).toFixed(2)} ms each, ${Math.round((count / ms) * 1000)} a second`);
}

async function rates(name: string, store: JobStore): Promise<void> {
  console.log(name);
  await timed("submit", JOBS, async () => {
    for (let job = 0; job < JOBS; job += 1) await store.submit(SPEC);
  });
  const leases: NonNullable<Awaited<ReturnType<JobStore["claimNext"]>>>[] = [];
  await timed("claim", JOBS, async () => {
    for (let lease = await store.claimNext(CLAIM); lease !== null; lease = await store.claimNext(CLAIM))
      leases.push(lease);
  });
  await timed("renew", JOBS, async () => {
    for (const lease of leases) await store.renew(lease);
  });
  await timed("progress", JOBS, async () => {
    for (const lease of leases) await store.writeProgress(lease, lease.job.progress);
  });
  await timed("finish", JOBS - 1, async () => {
    for (const lease of leases.slice(1)) await store.finish(lease, { kind: "cancelled" });
  });
  const [held] = leases;
  if (held === undefined) return;
  const rate = (ms: number): string => `${Math.round(CHECKPOINT_BYTES / 1e3 / ms)} MB/s`;
  const bytes = new Uint8Array(CHECKPOINT_BYTES).fill(7);
  const saveMs = performance.now();
  await store.saveCheckpoint(held, [bytes]);
  const loadMs = performance.now();
  await store.loadCheckpoint(held.id);
  console.log(`  checkpoint: saved at ${rate(loadMs - saveMs)}, loaded at ${rate(performance.now() - loadMs)}`);
}

/** What a checkpoint of a 720p clip of 21 latent frames costs: latent, two estimates and last latent, f32. Median of several. */
async function largeCheckpoints(name: string, store: JobStore): Promise<void> {
  await store.submit(SPEC);
  const lease = await store.claimNext(CLAIM);
  if (lease === null) throw new Error("no job waits");
  const parts = Array.from(
    { length: 4 },
    (_, at) => new Uint8Array(new Float32Array(21 * 90 * 160 * 16).fill(at).buffer),
  );
  const times: { saveMs: number; loadMs: number }[] = [];
  for (let run = 0; run < LARGE_RUNS; run += 1) {
    const startMs = performance.now();
    await store.saveCheckpoint(lease, parts);
    const savedMs = performance.now();
    if ((await store.loadCheckpoint(lease.id)) === null) throw new Error("the checkpoint is gone");
    times.push({ saveMs: savedMs - startMs, loadMs: performance.now() - savedMs });
  }
  await store.close();
  const median = (of: keyof (typeof times)[number]): number =>
    times.map((time) => time[of]).sort((one, other) => one - other)[Math.floor(LARGE_RUNS / 2)] ?? 0;
  const mb = Math.round(parts.reduce((sum, part) => sum + part.byteLength, 0) / 1e6);
  const save = median("saveMs");
  console.log(
    `${name}: checkpoint of ${mb} MB saved in ${Math.round(save)} ms, loaded in ${Math.round(median("loadMs"))} ms; ` +
      `1 % of ten steps (one checkpoint in ten) where a step takes ${(save / 100).toFixed(1)} s`,
  );
}

/** Time from a submit to its claim by one of several idle processes' stores. */
async function idleClaims(name: string, open: () => Promise<JobStore>): Promise<void> {
  const [submitter, ...claimants] = await Promise.all(Array.from({ length: IDLE_CLAIMANTS + 1 }, open));
  if (submitter === undefined) return;
  const stop = new AbortController();
  let claimed = Promise.withResolvers<void>();
  const loops = claimants.map(async (store) => {
    while (!stop.signal.aborted) {
      const after = store.changeCount;
      const lease = await store.claimNext(CLAIM);
      if (lease === null) await store.waitForChange({ after, signal: stop.signal }).catch(() => undefined);
      else claimed.resolve();
    }
  });
  const waits: number[] = [];
  for (let job = 0; job < 100; job += 1) {
    claimed = Promise.withResolvers<void>();
    await submitter.submit(SPEC);
    const startMs = performance.now();
    await claimed.promise;
    waits.push(performance.now() - startMs);
  }
  stop.abort();
  await Promise.all(loops);
  waits.sort((one, other) => one - other);
  const at = (share: number): string => (waits[Math.floor(waits.length * share)] ?? 0).toFixed(1);
  console.log(`${name}, ${IDLE_CLAIMANTS} idle claimants: submit to claim ${at(0.5)} ms median, ${at(0.95)} ms p95`);
  for (const store of [submitter, ...claimants]) await store.close();
}

const folder = mkdtempSync(join(tmpdir(), "moevie-bench-"));
const single = await NatsServer.start();
const three = await startNatsCluster();
const s3 = await S3Server.start();
const oneServer = (prefix: string) => () => openNatsStore({ servers: [single.url] }, { prefix });
const threeServers = () => openNatsStore({ servers: three.map(({ url }) => url) }, { replicas: 3 });
try {
  for (const [name, open] of [
    ["sqlite", () => openSqliteStore(join(folder, "jobs.db"))],
    ["one nats-server", oneServer("rates")],
    ["three nats-servers", threeServers],
  ] as const) {
    const store = await open();
    await rates(name, store);
    await store.close();
  }
  const place = await openCheckpointFolder(join(folder, "place"));
  const bucket = await openCheckpointBucket({ ...s3.access, prefix: "" }, console.warn);
  const inPlace = (prefix: string, where: LargeCheckpoints["place"]): Promise<JobStore> =>
    openNatsStore({ servers: [single.url] }, { prefix, large: { place: where, bytesMin: 0 } });
  await largeCheckpoints("sqlite", await openSqliteStore(join(folder, "large.db")));
  await largeCheckpoints("one nats-server", await oneServer("large")());
  await largeCheckpoints("nats with a folder", await inPlace("folder", place));
  await largeCheckpoints("nats with S3", await inPlace("bucket", bucket));
  await idleClaims("sqlite", () => openSqliteStore(join(folder, "idle.db")));
  await idleClaims("one nats-server", oneServer("idle"));
} finally {
  for (const server of [single, ...three, s3]) await server.close();
  rmSync(folder, { recursive: true, force: true });
}
