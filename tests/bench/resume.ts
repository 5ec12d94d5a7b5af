// From kill -9 of the scheduler in mid-job to the next step that a watcher sees, with the processes of `moevie serve` and jobs in SQLite or in
// NATS: the supervisor starts the scheduler again, the lease of the dead one is waited for, the job goes on from its checkpoint.
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { VideoClient, type VideoEvent } from "@moevie/client";
import { limit } from "@moevie/contracts";
import { CliSession } from "../e2e/cli-session.ts";
import { NatsServer } from "../support/nats-server.ts";
import { median, showTarget } from "./support/processes.ts";

const KILLS = 5;
const STEPS = 100;
/** Of a job, before it is hurt. */
const STEPS_BEFORE = 60;
const EMBEDDED_SECONDS_MAX = 3;
const PROMPT = { prompt: "a golden dog runs along the beach at sunset", seconds: 1, steps: STEPS };

interface Resumed {
  readonly seconds: number;
  /** Steps that were made again. */
  readonly repeated: number;
}

/** Kills the scheduler in the midst of the job and waits until the job goes on: encoding first, as after every claim, then a step. */
async function killOnce(events: AsyncIterator<VideoEvent>, kill: () => void): Promise<Resumed> {
  let reached = 0;
  while (reached < STEPS_BEFORE) reached = await nextStep(events);
  kill();
  const killedMs = performance.now();
  // What the dead scheduler wrote last may still come, and the record as it is when the job is taken back.
  for (let stage = ""; stage !== "VIDEO_STAGE_ENCODE";) {
    const { progress } = await next(events);
    if (progress?.stage === "VIDEO_STAGE_DENOISE") reached = Math.max(reached, progress.step);
    stage = progress?.stage ?? "";
  }
  const step = await nextStep(events);
  return { seconds: (performance.now() - killedMs) / 1000, repeated: Math.max(0, reached - step + 1) };
}

async function next(events: AsyncIterator<VideoEvent>): Promise<VideoEvent> {
  const event = await events.next();
  if (event.done === true) throw new Error("the watch ended before the job went on");
  return event.value;
}

async function nextStep(events: AsyncIterator<VideoEvent>): Promise<number> {
  for (;;) {
    const { progress } = await next(events);
    if (progress?.stage === "VIDEO_STAGE_DENOISE") return progress.step;
  }
}

async function measure(store: "SQLite" | "NATS"): Promise<readonly Resumed[]> {
  const nats = store === "NATS" ? await NatsServer.start() : undefined;
  const session = new CliSession();
  const where = nats === undefined ? ["--data", join(session.folder, "jobs")] : ["--nats", nats.url];
  const server = session.start("serve", "--grpc-port", "0", "--http-port", "0", ...where, "--json");
  try {
    await server.says(/^\{"grpc".*\}$/m);
    const client = new VideoClient((JSON.parse(server.stdout) as { readonly grpc: string }).grpc);
    const all: Resumed[] = [];
    for (let at = 0; at < KILLS; at++) {
      const { name } = await client.createVideo({ ...PROMPT, seed: at });
      const video = name.replace(/^operations\//, "videos/");
      const events = client.watchVideo(video)[Symbol.asyncIterator]();
      all.push(await killOnce(events, () => process.kill(session.pidOf("scheduler"), "SIGKILL")));
      await events.return?.(undefined);
      await client.cancelVideo(video);
      await pause(limit("leaseMs"));
    }
    client.close();
    return all;
  } finally {
    server.child.kill("SIGINT");
    await server.finished;
    session.close();
    await nats?.close();
  }
}

const results: Record<string, object> = {};
let met = true;
for (const [store, most] of [
  ["SQLite", EMBEDDED_SECONDS_MAX],
  ["NATS", limit("leaseMs") / 1000],
] as const) {
  const all = await measure(store);
  const seconds = all.map((resumed) => resumed.seconds);
  console.log(`\njobs in ${store}: ${seconds.map((value) => value.toFixed(2)).join(", ")} s`);
  console.log(`  steps made again: ${all.map(({ repeated }) => repeated).join(", ")} of ${STEPS}`);
  showTarget("from kill -9 to the next step, median", median(seconds), "s", "at most", most);
  met &&= median(seconds) <= most;
  results[store] = { all, medianSeconds: median(seconds), targetSeconds: most };
}
console.log(JSON.stringify({ ...results, met }));
process.exit(0);
