// How fast both job stores take, hand out, keep and end jobs, and how fast checkpoints go in and out; and what idle claimants cost.
//   node tests/bench/job-store.ts [JOBS]
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openNatsStore, openSqliteStore, type JobStore } from "@moevie/job-store";
import { SPEC } from "@moevie/job-store/contract-suite";
import { NatsServer, startNatsCluster } from "../support/nats-server.ts";

const JOBS = Number(process.argv[2] ?? 300);
const CLAIM = { owner: "bench", leaseMs: 600_000 };
const CHECKPOINT_BYTES = 32 * 2 ** 20;
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
  await idleClaims("sqlite", () => openSqliteStore(join(folder, "idle.db")));
  await idleClaims("one nats-server", oneServer("idle"));
} finally {
  for (const server of [single, ...three]) await server.close();
  rmSync(folder, { recursive: true, force: true });
}
