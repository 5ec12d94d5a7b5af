// What checkpoints cost: how fast each store takes those of several sizes, what share of the steps' time their spacing then leaves them, and
// what real clips of the starter model pay, beside the same clips without any.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { VideoClient } from "@moevie/client";
import type { JobStore } from "@moevie/job-store";
import { SPEC } from "@moevie/job-store/contract-suite";
import { CheckpointSpacing, StorePace } from "@moevie/scheduler/checkpoint-spacing";
import { CliSession } from "../../e2e/cli-session.ts";
import { NatsServer } from "../../support/nats-server.ts";
import { median, showTarget } from "./processes.ts";

const MIB = 2 ** 20;
const SHARE_MAX = 0.01;
const PERCENT_MAX = SHARE_MAX * 100;
const WRITES = 5;
/** Seconds a step takes: of a small model, of a large one. */
const STEP_SECONDS = [0.05, 5];
const CLIPS = 4;
const STEPS = 99;
/** Steps between two checkpoints that no clip has. */
const STEPS_BEYOND = 100;
const PROMPT = { prompt: "a golden dog runs along the beach at sunset", seconds: 1, steps: STEPS };

export interface NamedStore {
  readonly name: string;
  readonly open: () => Promise<JobStore>;
  /** Sizes of checkpoints, MiB. */
  readonly mib: readonly number[];
}

export interface WriteCost {
  readonly store: string;
  readonly mib: number;
  readonly seconds: number;
  readonly megabytesPerSecond: number;
  /** To read it back. */
  readonly loadSeconds: number;
  /** For steps of STEP_SECONDS each: steps between two checkpoints, and the share of the steps' time they take. */
  readonly spaced: readonly { readonly stepSeconds: number; readonly steps: number; readonly share: number }[];
}

/** The median of several writes of each size, and what the scheduler makes of it. */
export async function writeCosts(stores: readonly NamedStore[]): Promise<readonly WriteCost[]> {
  const costs: WriteCost[] = [];
  for (const { name, open, mib } of stores) {
    const store = await open();
    await store.submit(SPEC);
    const lease = await store.claimNext({ owner: "bench", leaseMs: 600_000 });
    if (lease === null) throw new Error("no job waits");
    for (const size of mib) {
      // As a job has it: latent, two estimates, last latent.
      const parts = Array.from({ length: 4 }, (_, part) => new Uint8Array((size * MIB) / 4).fill(part + 1));
      const seconds: number[] = [];
      const loads: number[] = [];
      for (let write = 0; write < WRITES; write += 1) {
        const startMs = performance.now();
        await store.saveCheckpoint(lease, parts);
        const savedMs = performance.now();
        if ((await store.loadCheckpoint(lease.id))?.byteLength !== size * MIB) throw new Error("another checkpoint");
        seconds.push((savedMs - startMs) / 1000);
        loads.push((performance.now() - savedMs) / 1000);
      }
      const each = median(seconds);
      const megabytesPerSecond = (size * MIB) / 1e6 / each;
      const spaced = STEP_SECONDS.map((stepSeconds) => ({ stepSeconds, ...spacing(size * MIB, each, stepSeconds) }));
      costs.push({ store: name, mib: size, seconds: each, megabytesPerSecond, loadSeconds: median(loads), spaced });
    }
    await store.close();
  }
  return costs;
}

/** Steps between two checkpoints that take `seconds` each, by the scheduler's own rule once it has measured them. */
function spacing(
  bytes: number,
  seconds: number,
  stepSeconds: number,
): { readonly steps: number; readonly share: number } {
  const pace = new StorePace();
  for (const _ of [1, 2]) pace.took(bytes, seconds);
  const rule = new CheckpointSpacing(pace, { stepsMin: 1, shareMax: SHARE_MAX });
  let steps = 0;
  do {
    rule.stepped(stepSeconds);
    steps += 1;
  } while (!rule.isDue(bytes));
  return { steps, share: seconds / (steps * stepSeconds) };
}

export function showWriteCosts(costs: readonly WriteCost[]): void {
  for (const { store, mib, seconds, megabytesPerSecond, loadSeconds, spaced } of costs) {
    const of = spaced.map(
      ({ stepSeconds, steps, share }) => `every ${steps} steps of ${stepSeconds} s, ${(share * 100).toFixed(2)} %`,
    );
    const rate = `${Math.round(megabytesPerSecond)} MB/s, ${seconds.toFixed(3)} s each, read in ${loadSeconds.toFixed(3)} s`;
    console.log(`  ${store}, ${mib} MiB: ${rate}; ${of.join("; ")}`);
  }
  const worst = Math.max(...costs.flatMap(({ spaced }) => spaced.map(({ share }) => share)));
  showTarget("largest share of the steps' time by spacing", worst * 100, "%", "at most", PERCENT_MAX);
}

export interface ClipCost {
  readonly store: string;
  /** Seconds of denoising, medians over the clips: checkpoints as they are, and none. */
  readonly withSeconds: number;
  readonly withoutSeconds: number;
  readonly checkpoints: number;
  readonly bytesEach: number;
  readonly checkpointSeconds: number;
  /** Seconds in checkpoints over seconds in steps, of the service's own metrics. */
  readonly share: number;
}

/** Clips of the starter model on a served cluster, with and without checkpoints in turn. */
export async function clipCost(store: "SQLite" | "NATS"): Promise<ClipCost> {
  const nats = store === "NATS" ? [await NatsServer.start(), await NatsServer.start()] : [];
  const scratch = mkdtempSync(join(tmpdir(), "moevie-bench-"));
  const served: Served[] = [];
  try {
    for (const [at, environment] of [{}, { MOEVIE_CHECKPOINT_STEPS: `${STEPS_BEYOND}` }].entries()) {
      const where = nats[at] === undefined ? ["--data", join(scratch, `jobs-${at}`)] : ["--nats", nats[at].url];
      served.push(await serve(environment, where));
    }
    const [kept, bare] = served as [Served, Served];
    const seconds = new Map<Served, number[]>([
      [kept, []],
      [bare, []],
    ]);
    let before: Counts | undefined;
    for (let clip = 0; clip <= CLIPS; clip += 1) {
      for (const one of clip % 2 === 0 ? [kept, bare] : [bare, kept]) {
        const denoise = await denoiseSeconds(one, clip);
        // The first warms up, and tells the scheduler what its store takes.
        if (clip > 0) seconds.get(one)?.push(denoise);
      }
      before ??= await counts(kept);
    }
    const after = await counts(kept);
    const of = (name: keyof Counts): number => after[name] - (before?.[name] ?? 0);
    const { checkpoints } = await counts(bare);
    if (checkpoints > 0) throw new Error(`${checkpoints} checkpoints where none were meant`);
    return {
      store,
      withSeconds: median(seconds.get(kept) ?? []),
      withoutSeconds: median(seconds.get(bare) ?? []),
      checkpoints: of("checkpoints") / CLIPS,
      bytesEach: of("bytes") / of("checkpoints"),
      checkpointSeconds: of("checkpointSeconds") / of("checkpoints"),
      share: of("checkpointSeconds") / of("stepSeconds"),
    };
  } finally {
    for (const one of served) await one.close();
    for (const server of nats) await server.close();
    rmSync(scratch, { recursive: true, force: true });
  }
}

export function showClipCost(cost: ClipCost): void {
  const { store, withSeconds, withoutSeconds, checkpoints, bytesEach, checkpointSeconds, share } = cost;
  const each = `${checkpoints.toFixed(1)} checkpoints a clip of ${(bytesEach / 1e6).toFixed(2)} MB, ${(checkpointSeconds * 1000).toFixed(1)} ms each`;
  console.log(`clips of ${STEPS} steps, jobs in ${store}: ${each}`);
  const more = (withSeconds / withoutSeconds - 1) * 100;
  console.log(
    `  denoising ${withSeconds.toFixed(2)} s with them, ${withoutSeconds.toFixed(2)} s without, medians: ${more.toFixed(1)} % more`,
  );
  showTarget("seconds in checkpoints over seconds in steps", share * 100, "%", "at most", PERCENT_MAX);
}

interface Served {
  readonly client: VideoClient;
  readonly http: string;
  readonly close: () => Promise<void>;
}

async function serve(environment: Readonly<Record<string, string>>, where: readonly string[]): Promise<Served> {
  const session = new CliSession(environment);
  const command = session.start("serve", "--grpc-port", "0", "--http-port", "0", ...where, "--json");
  await command.says(/^\{"grpc".*\}$/m);
  const { grpc, http } = JSON.parse(command.stdout) as { readonly grpc: string; readonly http: string };
  const client = new VideoClient(grpc);
  const close = async (): Promise<void> => {
    client.close();
    command.child.kill("SIGINT");
    await command.finished;
    session.close();
  };
  return { client, http, close };
}

async function denoiseSeconds({ client }: Served, seed: number): Promise<number> {
  const { name } = await client.createVideo({ ...PROMPT, seed });
  const operation = await client.waitOperation(name, 600_000);
  if (!operation.done) throw new Error("the clip was not made");
  const video = await client.getVideo(name.replace(/^operations\//, "videos/"));
  const seconds = video.stageTimings.find(({ stage }) => stage === "VIDEO_STAGE_DENOISE")?.seconds;
  if (seconds === undefined) throw new Error(`no time of denoising: ${JSON.stringify(video)}`);
  return seconds;
}

interface Counts {
  readonly checkpoints: number;
  readonly bytes: number;
  readonly checkpointSeconds: number;
  readonly stepSeconds: number;
}

async function counts({ http }: Served): Promise<Counts> {
  const text = await (await fetch(`${http}/metrics`)).text();
  const value = (name: string): number => {
    const line = new RegExp(`^${name}\\{[^}]*\\} (\\S+)$`, "m").exec(text);
    if (line === null) throw new Error(`no ${name} in the metrics`);
    return Number(line[1]);
  };
  return {
    checkpoints: value("moevie_job_checkpoints_total"),
    bytes: value("moevie_job_checkpoint_bytes_total"),
    checkpointSeconds: value("moevie_job_checkpoint_seconds_total"),
    stepSeconds: value("moevie_denoise_step_duration_seconds_sum"),
  };
}
