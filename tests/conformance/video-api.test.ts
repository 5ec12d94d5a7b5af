// The public API as callers meet it: a real gRPC server on the real store; the test plays the scheduler through the store.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Client, Metadata, credentials, type ServiceDefinition, type ServiceError } from "@grpc/grpc-js";
import { VideoClient } from "@moevie/client";
import { messageCodec, protoDefinitions, type VideoEvent, type VideoSpec } from "@moevie/contracts";
import { OpenCalls, publicServices, type Gateway } from "@moevie/gateway/api";
import { openSqliteStore, type JobStore, type Lease } from "@moevie/job-store";
import { GrpcPeer, Metrics, createLogger, openTracing, serveGrpc, type GrpcServer } from "@moevie/runtime";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { FACTS, MODEL } from "./served-model.ts";

const REQUEST_ID = "6f0d1c2e-3b4a-4c5d-8e9f-0a1b2c3d4e5f";
const LEASE_MS = 600_000;

let folder: string;
let store: JobStore;
let server: GrpcServer;
let drain: AbortController;
let client: VideoClient;
let raw: Client;
let metrics: Metrics;

async function serve(listen: string): Promise<void> {
  const log = await createLogger({ service: "gateway", level: "fatal", format: "json" });
  metrics = new Metrics("gateway");
  const tracing = await openTracing({ service: "gateway", endpoint: "", sampleRatio: 1 });
  drain = new AbortController();
  const gateway: Gateway = {
    store,
    model: MODEL,
    bundleDigest: "digest",
    metrics,
    tracing,
    log,
    logPrompts: false,
    calls: new OpenCalls(),
    signal: drain.signal,
  };
  const services = publicServices(gateway);
  server = await serveGrpc({ listen, services, log, metrics, reflection: true });
  server.setServing(true);
}

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "moevie-api-"));
  store = await openSqliteStore(join(folder, "jobs.db"), { queuedMax: 10 });
  await serve("127.0.0.1:0");
  client = new VideoClient(server.address);
  raw = new Client(server.address, credentials.createInsecure());
});
afterEach(async () => {
  client.close();
  raw.close();
  drain.abort();
  await server.close(100);
  await store.close();
  await rm(folder, { recursive: true, force: true });
});

async function claimed(): Promise<Lease> {
  const lease = await store.claimNext({ owner: "test", leaseMs: LEASE_MS });
  if (lease === null) throw new Error("no job waits");
  return lease;
}

async function finished(bytes = Buffer.from([1, 2, 3])): Promise<Lease> {
  const lease = await claimed();
  const attempt = await store.artefacts.createAttempt(lease);
  await attempt.write(bytes);
  await attempt.commit();
  await store.finish(lease, { kind: "completed", artefact: { ...FACTS, sizeBytes: bytes.byteLength } });
  return lease;
}

/** What a caller without our SDK receives: status and google.rpc details. */
function rawError(service: string, method: string, request: object): Promise<{ code: number; details: object[] }> {
  const definition = (protoDefinitions()[service] as ServiceDefinition)[method];
  if (definition === undefined) throw new Error(`no ${method}`);
  return new Promise((resolve, reject) => {
    const done = (error: ServiceError | null): void => {
      const [packed] = error?.metadata.get("grpc-status-details-bin") ?? [];
      if (error === null || !(packed instanceof Buffer)) return reject(new Error("no error with details"));
      const { details } = messageCodec("google.rpc.Status").decode(packed) as { details: object[] };
      resolve({ code: error.code, details });
    };
    raw.makeUnaryRequest(
      definition.path,
      definition.requestSerialize,
      definition.responseDeserialize,
      request,
      new Metadata(),
      done,
    );
  });
}

async function collect<T>(stream: AsyncIterable<T>): Promise<T[]> {
  const items: T[] = [];
  for await (const item of stream) items.push(item);
  return items;
}

describe("operations", () => {
  test("a created video is an operation that carries metadata, then the finished video", async () => {
    const operation = await client.createVideo({ prompt: "a dog", seed: Number.MAX_SAFE_INTEGER });
    const name = operation.name.replace("operations/", "videos/");
    expect(operation).toMatchObject({
      done: false,
      metadata: { "@type": "type.googleapis.com/moevie.v1.VideoMetadata", video: name, state: "VIDEO_STATE_QUEUED" },
    });
    const waiting = client.waitOperation(operation.name, 30_000);
    await finished();
    const ended = await waiting;
    expect(ended).toMatchObject({ done: true, result: "response" });
    expect(ended.response).toMatchObject({
      "@type": "type.googleapis.com/moevie.v1.Video",
      name,
      state: "VIDEO_STATE_COMPLETED",
      artefact: { sizeBytes: 3, codec: "h264" },
    });
    const video = await client.getVideo(name);
    expect(video.spec).toMatchObject({
      prompt: "a dog",
      seed: Number.MAX_SAFE_INTEGER,
      size: "1280x720",
      seconds: 2,
      fps: 24,
      steps: 4,
      guidance: 5,
      sampler: "unipc",
      model: "starter",
      quality: "QUALITY_STANDARD",
    });
    expect(video).toMatchObject({ bundleDigest: "digest", attempt: 1 });
    for (const time of [video.createTime, video.startTime, video.finishTime])
      expect(time?.seconds).toBeGreaterThan(1_600_000_000);
  });
  test("a failed job is the operation's error, with reason and public text", async () => {
    const { name } = await client.createVideo({ prompt: "a dog" });
    await store.finish(await claimed(), { kind: "failed", error: { reason: "OUT_OF_MEMORY", message: "too large" } });
    const operation = await client.getOperation(name);
    expect(operation).toMatchObject({
      done: true,
      result: "error",
      error: { code: 8, message: "too large", details: [{ reason: "OUT_OF_MEMORY", domain: "moevie" }] },
    });
  });
  test("cancel ends a waiting job as CANCELLED and flags a running one; a second cancel is no error", async () => {
    const waiting = await client.createVideo({ prompt: "a dog" });
    await client.cancelVideo(waiting.name);
    expect(await client.getOperation(waiting.name)).toMatchObject({ done: true, error: { code: 1 } });
    await client.cancelVideo(waiting.name);
    const running = await client.createVideo({ prompt: "a dog" });
    const lease = await claimed();
    await client.cancelVideo(running.name);
    expect(await store.renew(lease)).toEqual({ cancelRequested: true });
  });
  test("a wait that runs out answers the operation as it is", async () => {
    const { name } = await client.createVideo({ prompt: "a dog" });
    expect((await client.waitOperation(name, 30)).done).toBe(false);
  });
  test("validate_only answers a done operation with the spec and makes no job", async () => {
    const operation = await client.createVideo({ prompt: "a dog", seconds: 9 }, { validateOnly: true });
    expect(operation).toMatchObject({
      done: true,
      response: { spec: { prompt: "a dog", size: "1280x720" }, warnings: [expect.any(String)] },
    });
    expect((await client.listVideos()).videos).toEqual([]);
  });
});

describe("errors", () => {
  test("wrong fields come with code, ErrorInfo and one BadRequest that names each", async () => {
    const spec = { prompt: "", size: "100x100", seed: 2 ** 53, sampler: "ddim" };
    const { code, details } = await rawError("moevie.v1.VideoService", "CreateVideo", { spec });
    expect(code).toBe(3);
    expect(details).toHaveLength(2);
    expect(details[0]).toMatchObject({
      "@type": "type.googleapis.com/google.rpc.ErrorInfo",
      reason: "INVALID_FIELD",
      domain: "moevie",
    });
    const { fieldViolations } = details[1] as { fieldViolations: { field: string; description: string }[] };
    expect(fieldViolations.map(({ field }) => field).sort()).toEqual([
      "spec.prompt",
      "spec.sampler",
      "spec.seed",
      "spec.size",
    ]);
    for (const { description } of fieldViolations) expect(description).toContain("allowed:");
  });
  test.each([
    ["GetVideo", "moevie.v1.VideoService", { name: `videos/${REQUEST_ID}` }, 5, "VIDEO_NOT_FOUND"],
    ["DeleteVideo", "moevie.v1.VideoService", { name: `videos/${REQUEST_ID}` }, 5, "VIDEO_NOT_FOUND"],
    ["GetOperation", "google.longrunning.Operations", { name: `operations/${REQUEST_ID}` }, 5, "OPERATION_NOT_FOUND"],
    [
      "CancelOperation",
      "google.longrunning.Operations",
      { name: `operations/${REQUEST_ID}` },
      5,
      "OPERATION_NOT_FOUND",
    ],
    ["GetVideo", "moevie.v1.VideoService", { name: "videos/../../etc" }, 3, "INVALID_FIELD"],
    ["ListVideos", "moevie.v1.VideoService", { pageSize: -1 }, 3, "INVALID_FIELD"],
    ["ListVideos", "moevie.v1.VideoService", { pageToken: "made up" }, 3, "INVALID_FIELD"],
    ["CreateVideo", "moevie.v1.VideoService", { spec: { prompt: "x" }, requestId: "no uuid" }, 3, "INVALID_FIELD"],
  ])("%s of %s with %j says so", async (method, service, request, code, reason) => {
    const error = await rawError(service, method, request);
    expect(error.code).toBe(code);
    expect(error.details[0]).toMatchObject({ reason, domain: "moevie" });
  });
  test("a full queue is RESOURCE_EXHAUSTED with a time to wait, and counted", async () => {
    for (let job = 0; job < 10; job += 1) await client.createVideo({ prompt: "a dog" });
    await expect(client.createVideo({ prompt: "a dog" })).rejects.toMatchObject({
      reason: "QUEUE_FULL",
      code: "RESOURCE_EXHAUSTED",
      retryAfterMs: 5000,
    });
    expect(await metrics.text()).toMatch(/^moevie_jobs_refused_total\{.*reason="QUEUE_FULL".*\} 1$/m);
  });
  test("a download before the end is VIDEO_NOT_READY", async () => {
    const { name } = await client.createVideo({ prompt: "a dog" });
    await expect(collect(client.downloadVideo(name.replace("operations", "videos")))).rejects.toMatchObject({
      reason: "VIDEO_NOT_READY",
    });
  });
});

test("a repeated request_id is one job whatever its case; another body is ALREADY_EXISTS", async () => {
  const spec: Partial<VideoSpec> = { prompt: "a dog" };
  const first = await client.createVideo(spec, { requestId: REQUEST_ID });
  const again = await client.createVideo(spec, { requestId: REQUEST_ID.toUpperCase() });
  expect(again.name).toBe(first.name);
  await expect(client.createVideo({ prompt: "a cat" }, { requestId: REQUEST_ID })).rejects.toMatchObject({
    reason: "REQUEST_ID_REUSED",
    code: "ALREADY_EXISTS",
  });
  expect((await client.listVideos()).videos).toHaveLength(1);
});

test("pages hold every video once, newest first, and only an empty token ends them", async () => {
  const names: string[] = [];
  for (let job = 0; job < 5; job += 1)
    names.unshift((await client.createVideo({ prompt: "a dog" })).name.replace("operations", "videos"));
  const seen: string[] = [];
  let pageToken = "";
  do {
    const page = await client.listVideos({ pageSize: 2, pageToken });
    seen.push(...page.videos.map((video) => video.name));
    pageToken = page.nextPageToken;
  } while (pageToken !== "");
  expect(seen).toEqual(names);
  expect((await client.listVideos({ pageSize: 100_000 })).videos).toHaveLength(5);
});

const progress = (step: number) => ({ stage: "denoise", step, stepCount: 4, percent: step * 25 }) as const;

describe("watching", () => {
  test("every event comes once and in order, live, and the stream ends after the last state", async () => {
    const { name } = await client.createVideo({ prompt: "a dog" });
    const events: VideoEvent[] = [];
    const lease = await claimed();
    for await (const event of client.watchVideo(name.replace("operations", "videos"))) {
      events.push(event);
      const step = events.length - 1;
      if (step >= 1 && step <= 3) await store.writeProgress(lease, progress(step));
      if (step === 4) await store.finish(lease, { kind: "completed", artefact: FACTS });
    }
    expect(events.map((event) => event.state.slice("VIDEO_STATE_".length))).toEqual([
      "QUEUED",
      "RUNNING",
      "RUNNING",
      "RUNNING",
      "RUNNING",
      "COMPLETED",
    ]);
    expect(events.slice(2, 5).map((event) => event.progress?.step)).toEqual([1, 2, 3]);
    const from = events[3]?.cursor ?? "";
    const rest = await collect(client.watchVideo(name.replace("operations", "videos"), { cursor: from }));
    expect(rest.map((event) => event.cursor)).toEqual(events.slice(4).map((event) => event.cursor));
    const past = await collect(
      client.watchVideo(name.replace("operations", "videos"), { cursor: events.at(-1)?.cursor ?? "" }),
    );
    expect(past.map((event) => event.state)).toEqual(["VIDEO_STATE_COMPLETED"]);
  });

  test("a watch goes on by itself over a restart of the gateway, with nothing twice and nothing missing", async () => {
    const { name } = await client.createVideo({ prompt: "a dog" });
    const lease = await claimed();
    const events: VideoEvent[] = [];
    for await (const event of client.watchVideo(name.replace("operations", "videos"))) {
      if (event.heartbeat) continue;
      events.push(event);
      if (events.length === 2) {
        const { address } = server;
        drain.abort();
        await server.close(1000);
        await store.writeProgress(lease, progress(1));
        await serve(address);
        await store.finish(lease, { kind: "completed", artefact: FACTS });
      }
    }
    expect(events.map((event) => event.progress?.step)).toEqual([0, 0, 1, 1]);
    expect(new Set(events.map((event) => event.cursor)).size).toBe(4);
    expect(events.at(-1)?.state).toBe("VIDEO_STATE_COMPLETED");
  });

  test("who watches a failed video from its last event on is told why it failed", async () => {
    const video = (await client.createVideo({ prompt: "a dog" })).name.replace("operations", "videos");
    await store.finish(await claimed(), { kind: "failed", error: { reason: "OUT_OF_MEMORY", message: "9 bytes" } });
    const last = (await collect(client.watchVideo(video))).at(-1);
    const again = await collect(client.watchVideo(video, { cursor: last?.cursor ?? "" }));
    expect(again).toEqual([last]);
    expect(again[0]).toMatchObject({ state: "VIDEO_STATE_FAILED", error: { reason: "OUT_OF_MEMORY" } });
  });

  test("a dead video is listed, queued again on request, and who watches it from before sees it through to its end", async () => {
    const video = (await client.createVideo({ prompt: "a dog" })).name.replace("operations", "videos");
    const watched = collect(client.watchVideo(video));
    await store.finish(await claimed(), { kind: "failed", error: { reason: "PEER_UNAVAILABLE", message: "lost" } });
    await watched;
    expect((await client.listVideos({ deadOnly: true })).videos?.map(({ name }) => name)).toEqual([video]);
    expect(await client.retryVideo(video)).toMatchObject({ name: video, state: "VIDEO_STATE_QUEUED", attempt: 0 });
    expect((await client.listVideos({ deadOnly: true })).videos ?? []).toEqual([]);
    const lease = await claimed();
    expect(lease.id).toBe(video.replace("videos/", ""));
    const all = collect(client.watchVideo(video));
    await store.finish(lease, { kind: "completed", artefact: FACTS });
    expect((await all).at(-1)?.state).toBe("VIDEO_STATE_COMPLETED");
    await expect(client.retryVideo(video)).rejects.toMatchObject({ reason: "VIDEO_NOT_DEAD" });
  });

  test("a silent video's heartbeats come though another one is busy; a cursor of no event of this video is refused", async () => {
    const video = (await client.createVideo({ prompt: "a dog" })).name.replace("operations", "videos");
    const lease = await claimed();
    const quiet = (await client.createVideo({ prompt: "a cat" })).name.replace("operations", "videos");
    // The other video changes more often than a heartbeat is due.
    const busy = setInterval(() => void store.writeProgress(lease, progress(1)), 500);
    for await (const event of client.watchVideo(quiet)) if (event.heartbeat) break;
    clearInterval(busy);
    const events = await store.eventsAfter(video.slice("videos/".length), 0);
    const foreign = String(events.at(-1)?.sequence ?? 0);
    await expect(collect(client.watchVideo(quiet, { cursor: foreign }))).rejects.toMatchObject({
      reason: "INVALID_FIELD",
    });
  });

  test("a watcher of a deleted video is told that it is gone", async () => {
    const { name } = await client.createVideo({ prompt: "a dog" });
    const video = name.replace("operations", "videos");
    const watching = (async () => {
      for await (const event of client.watchVideo(video))
        if (!event.heartbeat) await client.deleteVideo(video).catch(() => undefined);
    })();
    await expect(watching).rejects.toMatchObject({ reason: "VIDEO_NOT_FOUND" });
  });
});

test("a download is the committed file, byte for byte, in chunks a message can hold", async () => {
  const bytes = Buffer.alloc(5_000_000, 7).fill(9, 0, 10);
  const { name } = await client.createVideo({ prompt: "a dog" });
  await finished(bytes);
  const chunks = await collect(client.downloadVideo(name.replace("operations", "videos")));
  expect(Buffer.concat(chunks).equals(bytes)).toBe(true);
  expect(Math.max(...chunks.map((chunk) => chunk.byteLength))).toBeLessThanOrEqual(1 << 20);
});

test("health answers for each service, and reflection lists them", async () => {
  for (const name of ["moevie.v1.VideoService", "google.longrunning.Operations"] as const) {
    const peer = new GrpcPeer(name, server.address);
    await peer.waitReady({ timeoutMs: 5000 });
    peer.close();
  }
  // ServerReflectionRequest.list_services is field 7; the names in the answer are plain text.
  const call = raw.makeBidiStreamRequest(
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    (request: Buffer) => request,
    (response: Buffer) => response,
    new Metadata(),
  );
  call.write(Buffer.from([0x3a, 0x01, 0x2a]));
  call.end();
  const answer = Buffer.concat(await collect(call as AsyncIterable<Buffer>)).toString("latin1");
  expect(answer).toContain("moevie.v1.VideoService");
  expect(answer).toContain("google.longrunning.Operations");
});
