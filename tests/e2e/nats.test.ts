// Two whole clusters on one NATS server share its jobs: one is killed in the middle of its clips, the other finishes them as if nothing
// had been, and every gateway answers for every job.
import { mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  openCheckpointBucket,
  openCheckpointFolder,
  openNatsStore,
  type JobStore,
  type LargeCheckpoints,
} from "@moevie/job-store";
import { NatsServer, startNatsCluster } from "../support/nats-server.ts";
import { S3Server } from "../support/s3-server.ts";
import { CliSession, type RunningCommand } from "./cli-session.ts";

interface Served {
  readonly session: CliSession;
  readonly command: RunningCommand;
  readonly grpc: string;
  readonly http: string;
}

const LONG = ["--size", "256x256", "--seconds", "1.5", "--steps", "100"];
const WAIT_MS = 120_000;
/** A store that has it sweeps. */
const KEEP_ALL = { jobsMax: 100, ageMsMax: 1e9, clipsBytesMax: 1e12 };

let nats: NatsServer;
let store: JobStore;
let bundle = "";
const sessions: CliSession[] = [];

beforeAll(async () => {
  nats = await NatsServer.start();
  // Built before the first test is timed.
  await (await S3Server.start()).close();
  store = await openNatsStore({ servers: [nats.url] });
}, S3Server.START_MS_MAX);
afterAll(async () => {
  for (const session of sessions) session.close();
  await store.close();
  await nats.close();
});

async function serve(servers = nats.url, environment: Readonly<Record<string, string>> = {}): Promise<Served> {
  const session = new CliSession(environment);
  sessions.push(session);
  if (bundle === "") bundle = await session.tinyBundle();
  const ports = ["--grpc-port", "0", "--http-port", "0"];
  const command = session.start("serve", "--model", bundle, "--nats", servers, ...ports, "--json");
  await command.says(/^\{"grpc".*\}$/m);
  const { grpc, http } = JSON.parse(command.stdout) as { readonly grpc: string; readonly http: string };
  return { session, command, grpc, http };
}

async function ask<T>(served: Served, ...args: string[]): Promise<T> {
  const { stdout, stderr } = await served.session.run(...args, "--server", served.grpc, "--json");
  if (stdout === "") throw new Error(stderr);
  return JSON.parse(stdout) as T;
}

async function submit(served: Served, seed: number): Promise<string> {
  const { name } = await ask<{ name: string }>(served, "submit", "a red boat", "--seed", String(seed), ...LONG);
  return name.replace("videos/", "");
}

/** Waits for a job's record as the store shows it; a server that is away is waited for. */
async function recordOf(
  id: string,
  holds: (job: Awaited<ReturnType<JobStore["get"]>>) => boolean,
  from: JobStore = store,
): Promise<void> {
  const signal = AbortSignal.timeout(WAIT_MS);
  for (;;) {
    const after = from.changeCount;
    const job = await from.get(id).catch((thrown: { readonly reason?: string }) => {
      if (thrown.reason !== "PEER_UNAVAILABLE") throw thrown;
      return undefined;
    });
    if (job !== undefined && holds(job)) return;
    if (job?.state.kind === "failed") throw new Error(`the job failed: ${JSON.stringify(job.state.error)}`);
    if (job !== undefined) await from.waitForChange({ after, signal });
    else signal.throwIfAborted();
  }
}

async function file(served: Served, id: string): Promise<string> {
  const response = await fetch(`${served.http}/files/${id}.mp4`);
  expect(response.status).toBe(200);
  return Buffer.from(await response.arrayBuffer()).toString("base64");
}

describe("two clusters on one NATS server", () => {
  it("finish each other's clips after a kill -9, once, with the bytes of an undisturbed run; any gateway has files and watches", async () => {
    const first = await serve();
    const ids = [await submit(first, 1), await submit(first, 2), await submit(first, 3), await submit(first, 4)];
    await recordOf(ids[0] ?? "", ({ progress }) => progress.step >= 3);
    const second = await serve();
    const watch = second.session.start("watch", `videos/${ids[0]}`, "--server", second.grpc, "--json");
    await recordOf(ids[0] ?? "", ({ state, progress }) => state.kind !== "running" || progress.step >= 20);
    const before = await Promise.all(ids.map((id) => store.get(id)));
    process.kill(first.session.pidOf("scheduler"), "SIGKILL");
    first.command.child.kill("SIGKILL");
    await first.session.untilNothingLeft();
    for (const id of ids) await recordOf(id, ({ state }) => state.kind === "completed");
    const after = await Promise.all(ids.map((id) => store.get(id)));
    const interrupted = before.flatMap(({ state }, at) => (state.kind === "running" ? [after[at]?.attempt] : []));
    expect(interrupted).toContain(2);
    for (const id of ids) {
      const events = await store.eventsAfter(id, 0);
      expect(events.filter(({ state }) => state === "completed")).toHaveLength(1);
      expect(events.at(-1)?.state).toBe("completed");
    }
    expect(await watch.finished).toMatchObject({ code: 0 });
    expect(await ask(second, "watch", `videos/${ids[1]}`)).toMatchObject({ state: "completed" });
    const disturbed = await Promise.all(ids.map((id) => file(second, id)));
    const again = [await submit(second, 1), await submit(second, 2)];
    for (const id of again) await recordOf(id, ({ state }) => state.kind === "completed");
    expect((await file(second, again[0] ?? "")) === disturbed[0]).toBe(true);
    expect((await file(second, again[1] ?? "")) === disturbed[1]).toBe(true);
    const { path } = await ask<{ path: string }>(second, "download", `videos/${ids[2]}`);
    expect(readFileSync(join(path)).toString("base64") === disturbed[2]).toBe(true);
  });

  it("keep a clip going while the server is away for a moment, and lose nothing", async () => {
    const served = await serve();
    const id = await submit(served, 5);
    await recordOf(id, ({ progress }) => progress.step >= 3);
    await nats.kill();
    await nats.again();
    await recordOf(id, ({ state }) => state.kind === "completed");
    expect(await store.get(id)).toMatchObject({ attempt: 1 });
    expect(await ask(served, "watch", `videos/${id}`)).toMatchObject({ state: "completed" });
  });
});

/** A place for checkpoints outside NATS. */
interface Outside {
  readonly settings: Readonly<Record<string, string>>;
  /** The same for a store of this process. */
  readonly place: LargeCheckpoints["place"];
  /** Where its files lie on the disk; of a bucket, those of its server. */
  readonly folder: string;
  readonly close: () => Promise<void> | void;
}

async function folderPlace(): Promise<Outside> {
  const outside = mkdtempSync(join(tmpdir(), "moevie-place-"));
  const folder = join(outside, "moevie");
  return {
    settings: { MOEVIE_CHECKPOINTS: `file://${outside}` },
    place: await openCheckpointFolder(folder),
    folder,
    close: () => rmSync(outside, { recursive: true, force: true }),
  };
}

async function bucketPlace(): Promise<Outside> {
  const s3 = await S3Server.start();
  return {
    settings: {
      MOEVIE_CHECKPOINTS: `s3://${s3.bucket}/clips`,
      MOEVIE_S3_ENDPOINT: s3.endpoint,
      MOEVIE_S3_ACCESS_KEY: s3.accessKey,
      MOEVIE_S3_SECRET_KEY: s3.secretKey,
    },
    place: await openCheckpointBucket({ ...s3.access, prefix: "clips/moevie/" }, () => undefined),
    folder: s3.path(""),
    close: () => s3.close(),
  };
}

/** Files below a folder, whatever they are called. */
function filesBelow(folder: string): string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
}

describe.each([
  { kind: "a folder", open: folderPlace },
  { kind: "a bucket", open: bucketPlace },
])("a cluster whose checkpoints go to $kind", ({ open }) => {
  it("goes on at the checkpoint there after a kill -9 of its scheduler, with the bytes of an undisturbed run, and leaves nothing there", async () => {
    const outside = await open();
    // Of its own: schedulers of other clusters here would take its jobs, and know no place.
    const server = await NatsServer.start();
    const records = await openNatsStore({ servers: [server.url] });
    try {
      const served = await serve(server.url, {
        ...outside.settings,
        MOEVIE_CHECKPOINTS_MIB_MIN: "0",
        MOEVIE_CHECKPOINT_STEPS: "5",
        MOEVIE_CHECKPOINT_SHARE: "1",
      });
      const id = await submit(served, 7);
      // The first of two is in the record: the second began after that.
      const kept = (): number => filesBelow(outside.folder).filter((path) => path.includes(id)).length;
      await expect.poll(kept, { timeout: WAIT_MS, interval: 5 }).toBeGreaterThan(1);
      process.kill(served.session.pidOf("scheduler"), "SIGKILL");
      await served.command.says(/going on from the checkpoint/);
      await recordOf(id, ({ state }) => state.kind === "completed", records);
      expect((await records.get(id)).attempt).toBe(2);
      // None of them went into NATS.
      expect((await records.artefacts.names(id)).filter((name) => name.includes("checkpoint"))).toEqual([]);
      const again = await submit(served, 7);
      await recordOf(again, ({ state }) => state.kind === "completed", records);
      expect((await file(served, id)) === (await file(served, again))).toBe(true);
      // What the killed one was writing goes with a sweep, such as whoever starts next makes.
      const next = await openNatsStore(
        { servers: [server.url] },
        { large: { place: outside.place, bytesMin: 0 }, retention: KEEP_ALL },
      );
      await expect.poll(() => filesBelow(outside.folder), { timeout: WAIT_MS }).toEqual([]);
      await next.close();
    } finally {
      await records.close();
      await server.close();
      await outside.close();
    }
  });
});

describe("a cluster on three NATS servers", () => {
  it("goes on with its clip when the server that it talks to is killed", async () => {
    const servers = await startNatsCluster();
    const urls = servers.map(({ url }) => url);
    const three = await openNatsStore({ servers: urls.slice(1) }, { replicas: 3 });
    try {
      const served = await serve(urls.join(","), { MOEVIE_NATS_REPLICAS: "3" });
      const id = await submit(served, 6);
      await recordOf(id, ({ progress }) => progress.step >= 3, three);
      await servers[0]?.kill();
      await recordOf(id, ({ state }) => state.kind === "completed", three);
      expect(await three.get(id)).toMatchObject({ attempt: 1 });
      expect(await ask(served, "watch", `videos/${id}`)).toMatchObject({ state: "completed" });
      expect((await file(served, id)).length).toBeGreaterThan(0);
    } finally {
      await three.close();
      for (const server of servers) await server.close();
    }
  });
});
