// Steps of a cluster while experts move and while they stay, in turns in one run: what a rebalance costs those who are served. Every round
// moves every expert of every layer to the next shard, as a controller does: copies are added, then the old ones are removed.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openBundle } from "@moevie/bundle";
import { seededNoise } from "@moevie/diffusion";
import { importStarter } from "@moevie/importer";
import { GrpcPeer } from "@moevie/runtime";
import { cluster, latentShape } from "./support/denoisers.ts";
import { ROOT, median, showTarget } from "./support/processes.ts";

const SHARDS = 4;
const ROUNDS = 4;
const WARM_UP_STEPS = 60;
/** Steps without moves in a round. */
const STILL_STEPS = 60;
/** How much longer than a change took shards rest after it: the default of MOEVIE_REST_RATIO. */
const REST_RATIO = 4;
const TARGET_RATIO = 1.25;
const CALL = { timeoutMs: 30_000 };

type Shard = GrpcPeer<"moevie.v1.PlacementService">;

let epoch = 1;

/** Makes a layer of a shard this, and rests as a controller does. Milliseconds until it is. */
async function change(shard: Shard, layer: number, experts: readonly number[]): Promise<number> {
  const startMs = performance.now();
  const operationId = `${++epoch}`;
  const target = { operationId, fence: 1, epoch, layer, experts: [...experts], deadlineMs: 30_000 };
  let operation = await shard.unary("ApplyPlacement", target, CALL);
  while (operation.phase === "OPERATION_PHASE_LOADING") {
    await new Promise((resolve) => setTimeout(resolve, 5));
    operation = await shard.unary("GetOperation", { operationId }, CALL);
  }
  if (operation.phase !== "OPERATION_PHASE_DONE") throw new Error(`${operation.reason}: ${operation.message}`);
  const tookMs = performance.now() - startMs;
  await new Promise((resolve) => setTimeout(resolve, tookMs * REST_RATIO));
  return tookMs;
}

/** Every expert goes to the next shard, layer by layer. Milliseconds of each change. */
async function moveAll(shards: readonly Shard[], layers: number): Promise<number[]> {
  const took: number[] = [];
  for (let layer = 0; layer < layers; layer++) {
    const held = await Promise.all(
      shards.map(async (shard) => {
        const { experts } = await shard.unary("GetHoldings", {}, CALL);
        return experts.flatMap((expert) => (expert.layer === layer ? [expert.expert] : []));
      }),
    );
    const wanted = held.map((_, index) => held.at(index - 1) ?? []);
    for (const [index, shard] of shards.entries())
      took.push(await change(shard, layer, [...(held[index] ?? []), ...(wanted[index] ?? [])]));
    for (const [index, shard] of shards.entries()) took.push(await change(shard, layer, wanted[index] ?? []));
  }
  return took;
}

function percentile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
}

async function measure(folder: string): Promise<object> {
  process.chdir("/");
  const bundle = await openBundle(folder);
  const { maxTokens, width } = bundle.manifest.text;
  const { denoiser } = bundle.manifest;
  const layers = "layers" in denoiser ? denoiser.layers : 0;
  const contexts = [3, 4].map((seed) => seededNoise(seed, [1, 1, maxTokens, width]));
  const subject = await cluster(bundle, folder, SHARDS, contexts);
  const shards = subject.shardAddresses.map((address) => new GrpcPeer("moevie.v1.PlacementService", address));
  const latent = seededNoise(7, latentShape(bundle));
  const step = async (): Promise<number> => {
    const startMs = performance.now();
    await subject.run(latent, 500);
    return performance.now() - startMs;
  };
  const [still, moving, changes]: [number[], number[], number[]] = [[], [], []];
  try {
    for (let at = 0; at < WARM_UP_STEPS; at++) await step();
    await moveAll(shards, layers);
    for (let round = 0; round < ROUNDS; round++) {
      for (let at = 0; at < STILL_STEPS; at++) still.push(await step());
      const moved = new AbortController();
      const all = moveAll(shards, layers).finally(() => moved.abort());
      while (!moved.signal.aborted) moving.push(await step());
      changes.push(...(await all));
    }
  } finally {
    for (const shard of shards) shard.close();
    await subject.close();
  }
  return report(still, moving, changes, layers);
}

function report(
  still: readonly number[],
  moving: readonly number[],
  changes: readonly number[],
  layers: number,
): object {
  console.log(`\nstarter model, ${SHARDS} shards, ${layers} layers; ${ROUNDS} rounds that move every expert`);
  console.log("                     steps   median ms      p95 ms   longest ms");
  for (const [name, values] of [
    ["experts stay", still],
    ["experts move", moving],
  ] as const)
    console.log(
      `  ${name.padEnd(16)} ${String(values.length).padStart(7)} ${median(values).toFixed(1).padStart(11)} ` +
        `${percentile(values, 0.95).toFixed(1).padStart(11)} ${Math.max(...values)
          .toFixed(1)
          .padStart(12)}`,
    );
  console.log(`  changes of a layer of a shard: ${changes.length}, median ${median(changes).toFixed(0)} ms`);
  const ratio = percentile(moving, 0.95) / percentile(still, 0.95);
  showTarget("p95 of steps while experts move", ratio, "x p95 while they stay", "at most", TARGET_RATIO);
  return {
    still: percentile(still, 0.95),
    moving: percentile(moving, 0.95),
    ratio,
    target: TARGET_RATIO,
    met: ratio <= TARGET_RATIO,
  };
}

const scratch = mkdtempSync(join(tmpdir(), "moevie-bench-rebalance-"));
try {
  const folder = join(scratch, "starter");
  await importStarter(join(ROOT, "packages/starter-model/weights"), folder);
  console.log(JSON.stringify(await measure(folder)));
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
process.exit(0);
