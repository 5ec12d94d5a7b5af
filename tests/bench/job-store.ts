// How fast both job stores take, hand out, keep and end jobs, what idle claimants cost, and what checkpoints cost of the steps' time.
//   node tests/bench/job-store.ts [JOBS]     0: checkpoints alone
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
import { clipCost, showClipCost, showWriteCosts, writeCosts, type ClipCost } from "./support/checkpoint-cost.ts";

const JOBS = Number(process.argv[2] ?? 300);
const CLAIM = { owner: "bench", leaseMs: 600_000 };
const IDLE_CLAIMANTS = 8;

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
  await timed("finish", JOBS, async () => {
    for (const lease of leases) await store.finish(lease, { kind: "cancelled" });
  });
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
const large = (prefix: string, place: LargeCheckpoints["place"]) => () =>
  openNatsStore({ servers: [single.url] }, { prefix, large: { place, bytesMin: 0 } });
try {
  for (const [name, open] of [
    ["sqlite", () => openSqliteStore(join(folder, "jobs.db"))],
    ["one nats-server", oneServer("rates")],
    ["three nats-servers", threeServers],
  ] as const) {
    if (JOBS === 0) break;
    const store = await open();
    await rates(name, store);
    await store.close();
  }
  if (JOBS > 0) await idleClaims("sqlite", () => openSqliteStore(join(folder, "idle.db")));
  if (JOBS > 0) await idleClaims("one nats-server", oneServer("idle"));
  const place = await openCheckpointFolder(join(folder, "place"));
  const bucket = await openCheckpointBucket({ ...s3.access, prefix: "" }, console.warn);
  console.log("checkpoints");
  const costs = await writeCosts([
    { name: "sqlite", open: () => openSqliteStore(join(folder, "large.db")), mib: [1, 16, 64, 256] },
    { name: "one nats-server", open: oneServer("large"), mib: [1, 16, 64] },
    { name: "nats with a folder", open: large("folder", place), mib: [1, 16, 64, 256] },
    { name: "nats with S3", open: large("bucket", bucket), mib: [1, 16, 64] },
  ]);
  showWriteCosts(costs);
  const clips: ClipCost[] = [];
  for (const store of ["SQLite", "NATS"] as const) {
    const cost = await clipCost(store);
    showClipCost(cost);
    clips.push(cost);
  }
  console.log(JSON.stringify({ costs, clips }));
} finally {
  for (const server of [single, ...three, s3]) await server.close();
  rmSync(folder, { recursive: true, force: true });
}
