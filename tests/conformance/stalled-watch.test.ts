// Watchers that open WatchVideo and read nothing, while a job makes far more than any buffer holds: a real gateway's memory stays flat, who
// reads is served at once, and who goes on reading has every event, in order, to the last. This process plays the scheduler.
import { spawn, type ChildProcess } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import { VideoClient } from "@moevie/client";
import { limit, type VideoEvent } from "@moevie/contracts";
import { importStarter } from "@moevie/importer";
import { openSqliteStore, type JobStore, type Lease } from "@moevie/job-store";
import { GrpcPeer } from "@moevie/runtime";
import { writeTinyModel } from "../parity/tiny.ts";
import { FACTS } from "./served-model.ts";

const TIMEOUT_MS = 120_000;
const STALLED = 12;
/** Made before watchers stall, then until all that may hold events for them is full, then while memory is to be flat. */
const [EVENTS_CALM, EVENTS_FILL, EVENTS_FLAT] = [50, 50, 120];
/** What garbage may add meanwhile; unread are 360 MiB. */
const GROWTH_BYTES_MAX = 32 * 2 ** 20;
/** An event is with a watcher that reads within this, whatever others do. */
const EVENT_MS_MAX = 5000;

const folder = mkdtempSync(join(tmpdir(), "moevie-stalled-"));
const address = `unix:${folder}/g`;
let child: ChildProcess;
let store: JobStore;
const clients: VideoClient[] = [];

beforeAll(async () => {
  writeTinyModel(join(folder, "model"));
  await importStarter(join(folder, "model"), join(folder, "bundle"));
  const env = {
    MOEVIE_GRPC_LISTEN: address,
    MOEVIE_HTTP_LISTEN: `unix:${folder}/h`,
    MOEVIE_BUNDLE: join(folder, "bundle"),
    MOEVIE_DATA: join(folder, "data"),
    MOEVIE_LOG_LEVEL: "warn",
  };
  const main = fileURLToPath(new URL("../../packages/gateway/src/main.ts", import.meta.url));
  child = spawn(process.execPath, [main], { env, stdio: ["ignore", "inherit", "inherit"] });
  const peer = new GrpcPeer("moevie.v1.VideoService", address);
  await peer.waitReady({ timeoutMs: TIMEOUT_MS });
  peer.close();
  store = await openSqliteStore(join(folder, "data", "jobs.db"));
});
afterAll(async () => {
  for (const client of clients) client.close();
  await store.close();
  const ended = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGTERM");
  await ended;
  rmSync(folder, { recursive: true, force: true });
});

/** Of the gateway's process. */
function residentBytes(): number {
  const status = readFileSync(`/proc/${child.pid}/status`, "latin1");
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]) * 1024;
}

function watch(name: string): AsyncIterator<VideoEvent> {
  const client = new VideoClient(address, { silenceMs: TIMEOUT_MS });
  clients.push(client);
  return client.watchVideo(name)[Symbol.asyncIterator]();
}

async function next(watcher: AsyncIterator<VideoEvent>): Promise<VideoEvent> {
  const { value, done } = await watcher.next();
  if (done === true) throw new Error("the watch ended early");
  return value;
}

/** The events from here on, to the last. */
async function rest(watcher: AsyncIterator<VideoEvent>): Promise<readonly VideoEvent[]> {
  const events: VideoEvent[] = [];
  for (let one = await watcher.next(); one.done !== true; one = await watcher.next()) events.push(one.value);
  return events.filter(({ cursor, heartbeat }) => cursor !== "" && !heartbeat);
}

/** Has so many events made and read by `reader`, one after the other: the events, the gateway's memory at its peak and the slowest event. */
async function run(eventCount: number, lease: Lease, reader: AsyncIterator<VideoEvent>) {
  const previewPng = new Uint8Array(limit("previewBytesMax")).fill(7);
  const events: VideoEvent[] = [];
  let [slowestMs, peakBytes] = [0, 0];
  for (let count = 0; count < eventCount; count++) {
    const startMs = performance.now();
    await store.appendEvent(lease, { previewPng });
    let event: VideoEvent;
    do event = await next(reader);
    while (event.previewPng.byteLength === 0);
    events.push(event);
    slowestMs = Math.max(slowestMs, performance.now() - startMs);
    peakBytes = Math.max(peakBytes, residentBytes());
  }
  return { events, slowestMs, peakBytes };
}

test("watchers that read nothing cost no memory and hold up nobody; when they read again they miss nothing", async () => {
  const submitter = new VideoClient(address);
  clients.push(submitter);
  const { name: operation } = await submitter.createVideo({ prompt: "a red boat", seconds: 0.5, size: "256x256" });
  const name = operation.replace("operations/", "videos/");
  const lease = await store.claimNext({ owner: "the test", leaseMs: TIMEOUT_MS });
  if (lease === null) throw new Error("no job to claim");
  const reader = watch(name);
  const calm = await run(EVENTS_CALM, lease, reader);
  const stalled = Array.from({ length: STALLED }, () => watch(name));
  for (const watcher of stalled) await next(watcher);
  const fill = await run(EVENTS_FILL, lease, reader);
  const flat = await run(EVENTS_FLAT, lease, reader);
  await store.finish(lease, { kind: "completed", artefact: FACTS });
  const seen = [...fill.events, ...flat.events, ...(await rest(reader))];
  const growthBytes = flat.peakBytes - fill.peakBytes;
  const told = [calm, fill, flat].map(
    ({ peakBytes, slowestMs }) => `${(peakBytes / 2 ** 20).toFixed(0)} MiB, ${slowestMs.toFixed(0)} ms`,
  );
  console.log(
    `memory and slowest event before ${STALLED} watchers stall, while they do, and later: ${told.join("; ")}`,
  );
  expect(growthBytes).toBeLessThan(GROWTH_BYTES_MAX);
  expect(Math.max(fill.slowestMs, flat.slowestMs)).toBeLessThan(EVENT_MS_MAX);
  const last = seen.at(-1);
  expect(last?.state).toBe("VIDEO_STATE_COMPLETED");
  for (const watcher of stalled) {
    const cursors = (await rest(watcher)).map(({ cursor }) => Number(cursor));
    expect(cursors).toEqual([...new Set(cursors)].sort((one, other) => one - other));
    expect(cursors.slice(-seen.length)).toEqual(seen.map(({ cursor }) => Number(cursor)));
  }
});
