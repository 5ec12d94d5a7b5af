// What a clip costs by its length: seconds in all and in each stage, and the most memory each process held meanwhile. Finishing streams and
// windows come one after another, so a longer clip may take longer, but not more room.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { VideoClient, type Video } from "@moevie/client";
import { importStarter } from "@moevie/importer";
import { startCluster } from "./support/cluster.ts";
import { ProcessGroup, ROOT, residentMiB, showTarget, type BenchProcess } from "./support/processes.ts";

const PROMPT = "a golden dog runs along the beach at sunset";
const LENGTHS = [2, 10, 30] as const;
/** Seconds of work allowed for clips of 2 and of 10 seconds; growth of memory from 10 to 30 seconds. */
const TARGETS = { 2: 30, 10: 120, growth: 1.1 } as const;
const LOOK_MS = 250;
const WAIT_MS = 60_000;

interface Cost {
  readonly seconds: number;
  readonly totalSeconds: number;
  readonly stages: Readonly<Record<string, number>>;
  readonly peakMiB: Readonly<Record<string, number>>;
}

/** Peaks of resident memory by process, looked at until the signal. */
async function watchMemory(processes: readonly BenchProcess[], signal: AbortSignal): Promise<Record<string, number>> {
  const peaks: Record<string, number> = {};
  while (!signal.aborted) {
    for (const { name, pid } of processes) peaks[name] = Math.max(peaks[name] ?? 0, residentMiB(pid));
    await sleep(LOOK_MS, undefined, { signal }).catch(() => undefined);
  }
  return peaks;
}

async function costOf(client: VideoClient, processes: readonly BenchProcess[], seconds: number): Promise<Cost> {
  const over = new AbortController();
  const memory = watchMemory(processes, over.signal);
  const startMs = performance.now();
  const operation = await client.createVideo({ prompt: PROMPT, seed: 1, seconds });
  for (let now = operation; !now.done;) now = await client.waitOperation(operation.name, WAIT_MS);
  const totalSeconds = (performance.now() - startMs) / 1000;
  over.abort();
  const video: Video = await client.getVideo(operation.name.replace(/^operations\//, "videos/"));
  if (video.error !== null) throw new Error(`the clip of ${seconds} s failed: ${video.error.message}`);
  const stages = Object.fromEntries(
    video.stageTimings.map(({ stage, seconds: spent }) => [stage.replace("VIDEO_STAGE_", "").toLowerCase(), spent]),
  );
  return { seconds, totalSeconds, stages, peakMiB: await memory };
}

function show({ seconds, totalSeconds, stages, peakMiB }: Cost): void {
  console.log(`\n  a clip of ${seconds} s: ${totalSeconds.toFixed(1)} s`);
  for (const [stage, spent] of Object.entries(stages))
    console.log(
      `    ${stage.padEnd(14)} ${spent.toFixed(2).padStart(7)} s  ${((100 * spent) / totalSeconds).toFixed(0).padStart(3)} %`,
    );
  for (const [name, mebibytes] of Object.entries(peakMiB))
    console.log(`    ${name.padEnd(14)} ${mebibytes.toFixed(0).padStart(7)} MiB at most`);
}

const sumOf = ({ peakMiB }: Cost): number => Object.values(peakMiB).reduce((sum, mebibytes) => sum + mebibytes, 0);

const scratch = mkdtempSync(join(tmpdir(), "moevie-bench-clip-"));
const group = new ProcessGroup();
try {
  const bundle = join(scratch, "bundle");
  await importStarter(join(ROOT, "packages/starter-model/weights"), bundle);
  const processes = await startCluster(group, { bundle, data: join(scratch, "data") });
  const client = new VideoClient(group.address("gateway"));
  await costOf(client, processes, 2);
  const costs: Cost[] = [];
  for (const seconds of LENGTHS) {
    const cost = await costOf(client, processes, seconds);
    costs.push(cost);
    show(cost);
  }
  client.close();
  const [short, middle, long] = costs as [Cost, Cost, Cost];
  console.log("");
  showTarget("a clip of 2 s", short.totalSeconds, "s", "at most", TARGETS[2]);
  showTarget("a clip of 10 s", middle.totalSeconds, "s", "at most", TARGETS[10]);
  showTarget("memory, 30 s against 10 s", sumOf(long) / sumOf(middle), "x", "at most", TARGETS.growth);
  console.log(JSON.stringify({ costs, targets: TARGETS }));
} finally {
  await group.close();
  rmSync(scratch, { recursive: true, force: true });
}
