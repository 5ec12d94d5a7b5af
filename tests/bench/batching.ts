// Several jobs at one router: their evaluations as batches against each alone, and the branches of a job as one batch against taking turns.
// Two shards; every round asks each cluster in turn, so that a noisy machine troubles all alike. Ratios count, milliseconds drift.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openBundle, type Bundle } from "@moevie/bundle";
import { seededNoise } from "@moevie/diffusion";
import { importStarter } from "@moevie/importer";
import { cluster, type ClusterSubject } from "./support/denoisers.ts";
import { ROOT, median, showTarget } from "./support/processes.ts";

const ROUNDS = 7;
const STEPS = 10;
const WARM_UP_ROUNDS = 2;
const JOB_COUNTS = [1, 2, 4];
/** Latent [frames, height, width]: 4, 16, 64 and 225 rows a branch, the last as the default clip's. */
const SIZES = [
  [1, 4, 4],
  [1, 8, 8],
  [1, 16, 16],
  [5, 10, 18],
] as const;
const ALONE = { MOEVIE_BATCH_MAX: "1" };
const JOBS_ONLY = { MOEVIE_BRANCH_ROWS_MIN: "0" };
const BRANCHES_TOO = { MOEVIE_BRANCH_ROWS_MIN: "1048576" };
const SUBJECTS = [ALONE, JOBS_ONLY, BRANCHES_TOO];
const TARGET_RATIO = 1;

/** Milliseconds a step of all jobs together. */
async function stepMs(jobs: Awaited<ReturnType<ClusterSubject["job"]>>[], latent: Float32Array): Promise<number> {
  const startMs = performance.now();
  await Promise.all(
    jobs.map(async ({ run }, at) => {
      for (let step = 0; step < STEPS; step++) await run(latent, 900 - 50 * step - at);
    }),
  );
  return (performance.now() - startMs) / STEPS;
}

async function compare(
  bundle: Bundle,
  clusters: readonly ClusterSubject[],
  size: readonly number[],
  count: number,
): Promise<object> {
  const { maxTokens, width } = bundle.manifest.text;
  const shape = [bundle.manifest.latent.channels, ...size] as [number, number, number, number];
  const latent = seededNoise(7, shape);
  const jobs = await Promise.all(
    clusters.map((one) =>
      Promise.all(
        Array.from({ length: count }, (_, at) =>
          one.job(shape, [seededNoise(at, [1, 1, maxTokens, width]), seededNoise(100 + at, [1, 1, maxTokens, width])]),
        ),
      ),
    ),
  );
  const times: number[][] = clusters.map(() => []);
  for (let round = 0; round < ROUNDS + WARM_UP_ROUNDS; round++)
    for (const [at, own] of jobs.entries()) {
      const ms = await stepMs(own, latent);
      if (round >= WARM_UP_ROUNDS) times[at]?.push(ms);
    }
  for (const { close } of jobs.flat()) close();
  const [alone = 0, byJobs = 0, branches = 0] = times.map(median);
  const rows = size.reduce((product, side) => product * side, 1) / 4;
  const cell = (ms: number): string => `${ms.toFixed(2).padStart(9)} ${(ms / alone).toFixed(2).padStart(6)}`;
  console.log(
    `  ${String(rows).padStart(4)} rows  ${count} jobs  ${alone.toFixed(2).padStart(9)} ${cell(byJobs)} ${cell(branches)}`,
  );
  return { rows, jobs: count, alone, byJobs, branches };
}

const scratch = mkdtempSync(join(tmpdir(), "moevie-bench-batching-"));
try {
  const folder = join(scratch, "starter");
  await importStarter(join(ROOT, "packages/starter-model/weights"), folder);
  process.chdir("/");
  const bundle = await openBundle(folder);
  const { maxTokens, width } = bundle.manifest.text;
  const contexts = [3, 4].map((seed) => seededNoise(seed, [1, 1, maxTokens, width]));
  const clusters: ClusterSubject[] = [];
  for (const settings of SUBJECTS) clusters.push(await cluster(bundle, folder, 2, contexts, settings));
  console.log(`\nms a step of all jobs, both branches; medians of ${ROUNDS} rounds of ${STEPS} steps`);
  console.log("                      alone   jobs as batches   branches too");
  const results: object[] = [];
  for (const size of SIZES) for (const count of JOB_COUNTS) results.push(await compare(bundle, clusters, size, count));
  const last = results.at(-1) as { alone: number; byJobs: number };
  showTarget("4 jobs of 225 rows as batches", last.byJobs / last.alone, "x alone", "at most", TARGET_RATIO);
  for (const one of clusters) await one.close();
  console.log(JSON.stringify(results));
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
process.exit(0);
