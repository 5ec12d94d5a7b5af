// Finished clips over HTTP: ranges as players ask for them, and plain answers for what is not there.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openSqliteStore, type JobStore } from "@moevie/job-store";
import { Metrics, createLogger, openTracing, serveHttp, type HttpEdge } from "@moevie/runtime";
import { afterAll, beforeAll, expect, test } from "vitest";
import { gatewayHttp } from "./http.ts";
import { OpenCalls } from "./open-calls.ts";
import { MODEL } from "./model.fixture.ts";

const SPEC = {
  prompt: "a",
  negativePrompt: "",
  seed: 1,
  width: 256,
  height: 256,
  seconds: 1,
  fps: 1,
  quality: "standard" as const,
  colorCorrection: true,
  steps: 1,
  guidance: 1,
  sampler: "euler",
  model: "m",
};
const BYTES = Buffer.from("0123456789");
const FACTS = {
  sizeBytes: 10,
  sha256: "ab",
  codec: "h264",
  pixelFormat: "yuv420p",
  width: 256,
  height: 256,
  fps: 1,
  frameCount: 1,
};

let folder: string;
let store: JobStore;
let edge: HttpEdge;
let done: string;
let waiting: string;
const calls = new OpenCalls({ downloads: 2 });

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "moevie-files-"));
  store = await openSqliteStore(join(folder, "jobs.db"));
  const metrics = new Metrics("gateway");
  edge = await serveHttp("127.0.0.1:0", metrics);
  const log = await createLogger({ service: "gateway", level: "fatal", format: "json" });
  const tracing = await openTracing({ service: "gateway", endpoint: "", sampleRatio: 1 });
  const { signal } = new AbortController();
  edge.use(
    gatewayHttp(
      { store, model: MODEL, bundleDigest: "d", metrics, tracing, log, logPrompts: false, calls, signal },
      [],
    ),
  );
  ({ id: done } = await store.submit(SPEC));
  const lease = await store.claimNext({ owner: "test", leaseMs: 600_000 });
  if (lease === null) throw new Error("no job waits");
  const attempt = await store.artefacts.createAttempt(lease);
  await attempt.write(BYTES);
  await attempt.writeCompanion("sprites.jpg", "a picture");
  await attempt.commit();
  await store.finish(lease, { kind: "completed", artefact: FACTS });
  ({ id: waiting } = await store.submit(SPEC));
});
afterAll(async () => {
  await edge.close();
  await store.close();
  await rm(folder, { recursive: true, force: true });
});

const get = (id: string, init: RequestInit = {}, file = "mp4"): Promise<Response> =>
  fetch(`http://${edge.address}/files/${id}.${file}`, init);

test("a whole clip comes with its type, length and the promise of ranges", async () => {
  const response = await get(done);
  expect(response.status).toBe(200);
  expect(Object.fromEntries(response.headers)).toMatchObject({
    "content-type": "video/mp4",
    "content-length": "10",
    "accept-ranges": "bytes",
  });
  expect(Buffer.from(await response.arrayBuffer())).toEqual(BYTES);
  const head = await get(done, { method: "HEAD" });
  expect([head.status, head.headers.get("content-length"), await head.text()]).toEqual([200, "10", ""]);
});

test.each([
  ["bytes=0-0", 206, "0", "bytes 0-0/10"],
  ["bytes=4-", 206, "456789", "bytes 4-9/10"],
  ["bytes=2-100", 206, "23456789", "bytes 2-9/10"],
  ["bytes=-3", 206, "789", "bytes 7-9/10"],
  ["bytes=-100", 206, "0123456789", "bytes 0-9/10"],
  ["bytes=10-", 416, "", "bytes */10"],
  ["bytes=-0", 416, "", "bytes */10"],
  ["bytes=0-1,3-4", 200, "0123456789", null],
  ["lines=1-2", 200, "0123456789", null],
])("range %s is %i", async (range, status, body, contentRange) => {
  const response = await get(done, { headers: { range } });
  expect([response.status, await response.text(), response.headers.get("content-range")]).toEqual([
    status,
    body,
    contentRange,
  ]);
});

test("an unfinished clip is a conflict, an unknown one not found, and no path leads out of the store", async () => {
  expect((await get(waiting)).status).toBe(409);
  expect((await get("00000000-0000-0000-0000-000000000000")).status).toBe(404);
  expect((await get("..%2f..%2fjobs")).status).toBe(404);
});

test("what lies beside a clip comes with its own type, and nothing else does", async () => {
  const response = await get(done, {}, "sprites.jpg");
  expect([response.status, response.headers.get("content-type"), await response.text()]).toEqual([
    200,
    "image/jpeg",
    "a picture",
  ]);
  expect((await get(done, {}, "thumbnail.jpg")).status).toBe(409);
  for (const other of ["checkpoint", "toString", "mp4.mp4", "jpg"])
    expect((await get(done, {}, other)).status).toBe(404);
});

test("one download too many is told when to come back, and is served once another one ended", async () => {
  const gate = Promise.withResolvers<void>();
  const others = [1, 2].map(() => calls.during("downloads", () => gate.promise));
  const refused = await get(done);
  expect([refused.status, refused.headers.get("retry-after")]).toEqual([503, "5"]);
  expect(await refused.json()).toMatchObject({ error: { reason: "TOO_MANY_OPEN_CALLS" } });
  gate.resolve();
  await Promise.all(others);
  expect((await get(done)).status).toBe(200);
});
