// Cancel of a running clip in a real cluster: once it is answered, the shards get no more rows than those of the step that runs.
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { afterAll, beforeAll, expect, it } from "vitest";
import { VideoClient } from "@moevie/client";
import { CliSession } from "./cli-session.ts";

const WAIT_MS = 120_000;
const POLL_MS = 20;
/** Over so many steps their time and rows are measured, and for the time of so many the shards must stay still. */
const STEPS = 12;
/** The step that runs, and what is uncertain of the measured rows of one: 12 steps are told apart by whole ones. */
const ROWS_MAX = 1 + 2 / STEPS;

let session: CliSession;
let client: VideoClient;
let http = "";
beforeAll(async () => {
  session = new CliSession();
  const ports = ["--grpc-port", "0", "--http-port", "0"];
  const bundle = await session.tinyBundle();
  const where = ["--data", join(session.folder, "jobs"), "--shards", "2"];
  const server = session.start("serve", "--model", bundle, ...where, ...ports, "--json");
  await server.says(/^\{"grpc".*\}$/m);
  const facts = JSON.parse(server.stdout) as { readonly grpc: string; readonly http: string };
  http = facts.http;
  client = new VideoClient(facts.grpc);
});
afterAll(() => {
  client.close();
  session.close();
});

/** Rows that experts of all shards have computed. */
async function rows(): Promise<number> {
  const page = await (await fetch(`${http}/metrics`)).text();
  const counts = [...page.matchAll(/^moevie_expert_tokens_total\{.*\} (\d+)$/gm)].map(([, count]) => Number(count));
  if (counts.length !== 2) throw new Error(`counters of ${counts.length} shards on the page, not 2`);
  return counts.reduce((sum, count) => sum + count, 0);
}

async function stepOf(name: string): Promise<number> {
  return (await client.getVideo(name)).progress?.step ?? 0;
}

/** Waits until the clip is at `step` or beyond: the step then. */
async function atStep(name: string, step: number): Promise<number> {
  const endMs = performance.now() + WAIT_MS;
  for (;;) {
    const now = await stepOf(name);
    if (now >= step) return now;
    if (performance.now() > endMs) throw new Error(`step ${now} of ${step} after ${WAIT_MS} ms`);
    await pause(POLL_MS);
  }
}

it("is felt by the shards within one step: no more rows than those of the step that runs, and none once the clip has ended", async () => {
  const spec = { prompt: "a red boat", seed: 1, size: "1280x1280", seconds: 4, steps: 100 };
  const name = (await client.createVideo(spec)).name.replace("operations/", "videos/");
  const from = await atStep(name, 3);
  const [fromMs, fromRows] = [performance.now(), await rows()];
  const to = await atStep(name, from + STEPS);
  const stepMs = (performance.now() - fromMs) / (to - from);
  const rowsPerStep = ((await rows()) - fromRows) / (to - from);

  await client.cancelVideo(name);
  const answeredMs = performance.now();
  const atCancel = await rows();
  const ended = await client.waitOperation(name, WAIT_MS);
  const endedMs = performance.now() - answeredMs;
  const atEnd = await rows();
  await pause(STEPS * stepMs);
  console.log(
    `a step takes ${stepMs.toFixed(0)} ms and ${rowsPerStep.toFixed(0)} rows; after the cancel was answered ${atEnd - atCancel} more, and the clip ended ${endedMs.toFixed(0)} ms later`,
  );
  expect(ended.done).toBe(true);
  expect((await client.getVideo(name)).state).toBe("VIDEO_STATE_CANCELLED");
  expect(to).toBeLessThan(80);
  expect(atEnd - atCancel).toBeLessThanOrEqual(rowsPerStep * ROWS_MAX);
  expect((await rows()) - atEnd).toBe(0);
});
