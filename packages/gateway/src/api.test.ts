// The public services over a real server: long calls are bounded, a caller that goes away makes room, waiting leaves nothing behind,
// and a delete is done or not done.
import { getEventListeners } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { openSqliteStore, type JobStore } from "@moevie/job-store";
import {
  GrpcPeer,
  Metrics,
  createLogger,
  openTracing,
  serveGrpc,
  type CallInfo,
  type GrpcServer,
} from "@moevie/runtime";
import { afterAll, beforeAll, expect, test } from "vitest";
import { OpenCalls, publicServices, type Gateway } from "./api.ts";
import { videoHandlers } from "./service.ts";
import { storeChanged } from "./store-change.ts";
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
const SIZE_BYTES = 8 * 1024 * 1024;
const SOON = { timeoutMs: 10_000 };

let folder: string;
let store: JobStore;
let gateway: Gateway;
let server: GrpcServer;
let operations: GrpcPeer<"google.longrunning.Operations">;
let done: string;
let waiting: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "moevie-calls-"));
  store = await openSqliteStore(join(folder, "jobs.db"));
  const log = await createLogger({ service: "gateway", level: "fatal", format: "json" });
  const metrics = new Metrics("gateway");
  gateway = {
    store,
    model: MODEL,
    bundleDigest: "d",
    metrics,
    tracing: await openTracing({ service: "gateway", endpoint: "", sampleRatio: 1 }),
    log,
    logPrompts: false,
    calls: new OpenCalls({ watches: 1, waits: 1, downloads: 1 }),
    signal: new AbortController().signal,
  };
  server = await serveGrpc({
    listen: "127.0.0.1:0",
    services: publicServices(gateway),
    log,
    metrics,
    reflection: false,
  });
  operations = new GrpcPeer("google.longrunning.Operations", server.address);
  ({ id: done } = await store.submit(SPEC));
  const lease = await store.claimNext({ owner: "test", leaseMs: 600_000 });
  if (lease === null) throw new Error("no job waits");
  const attempt = await store.artefacts.createAttempt(lease);
  await attempt.write(Buffer.alloc(SIZE_BYTES));
  await attempt.commit();
  const facts = { sha256: "ab", codec: "h264", pixelFormat: "yuv420p", width: 256, height: 256, fps: 1, frameCount: 1 };
  await store.finish(lease, { kind: "completed", artefact: { ...facts, sizeBytes: SIZE_BYTES } });
  ({ id: waiting } = await store.submit(SPEC));
});
afterAll(async () => {
  operations.close();
  await server.close(100);
  await store.close();
  await rm(folder, { recursive: true, force: true });
});

const wait = (timeout: { seconds: number; nanos: number }, options: { signal?: AbortSignal } = {}): Promise<unknown> =>
  operations
    .unary("WaitOperation", { name: `operations/${waiting}`, timeout }, { ...SOON, ...options })
    .catch((thrown: unknown) => thrown);
function callInfo(): CallInfo {
  const { signal } = new AbortController();
  return { signal, draining: signal, deadlineMs: Infinity, traceparent: undefined };
}
const refusal = (kind: string) => ({
  reason: "TOO_MANY_OPEN_CALLS",
  code: "RESOURCE_EXHAUSTED",
  message: `1 ${kind} are open at this gateway, the most it holds.`,
  retryAfterMs: 5000,
});

test.each([
  { seconds: 0, nanos: 1 },
  { seconds: 0, nanos: 1_500_000 },
  { seconds: -1, nanos: 0 },
])("a wait of %j is answered with the work as it is", async (timeout) => {
  expect(await wait(timeout)).toMatchObject({ name: `operations/${waiting}`, done: false });
});

test("one wait too many is refused with a time to come back; a caller that goes away makes room", async () => {
  const abort = new AbortController();
  const first = wait({ seconds: 60, nanos: 0 }, { signal: abort.signal });
  // The first may not have arrived yet; then this one takes the place and ends at once.
  const second = (): Promise<unknown> => wait({ seconds: 0, nanos: 0 });
  await expect.poll(second).toMatchObject(refusal("waits"));
  abort.abort();
  expect(await first).toMatchObject({ reason: "CANCELLED" });
  await expect.poll(second).toMatchObject({ done: false });
});

test.each(["watches", "downloads"] as const)("one too many of %s is refused until another one ends", async (kind) => {
  const { WatchVideo, DownloadVideo } = videoHandlers(gateway);
  const open = (): AsyncIterator<unknown> => {
    const messages: AsyncIterable<unknown> =
      kind === "watches"
        ? WatchVideo({ name: `videos/${waiting}`, cursor: "" }, callInfo())
        : DownloadVideo({ name: `videos/${done}` }, callInfo());
    return messages[Symbol.asyncIterator]();
  };
  const [first, second, third] = [open(), open(), open()];
  expect(await first.next()).toMatchObject({ done: false });
  await expect(second.next()).rejects.toMatchObject(refusal(kind));
  await first.return?.();
  expect(await third.next()).toMatchObject({ done: false });
  await third.return?.();
});

test("a call that waits often leaves no timer, no listener and no memory behind", async () => {
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as () => void;
  const call = callInfo();
  const changing = { ...gateway, store: { waitForChange: () => Promise.resolve() } as unknown as JobStore };
  const heapBytes = (): number => {
    collect();
    return process.memoryUsage().heapUsed;
  };
  const waitOften = async (): Promise<void> => {
    for (let at = 0; at < 20_000; at++) await storeChanged(changing, call, 0, 600_000);
  };
  await waitOften();
  const before = heapBytes();
  await waitOften();
  expect(heapBytes() - before).toBeLessThan(2 * 1024 * 1024);
  for (const source of [call.signal, gateway.signal]) expect(getEventListeners(source, "abort")).toEqual([]);
  expect(process.getActiveResourcesInfo().filter((name) => name === "Timeout").length).toBeLessThan(100);
});

test("a delete that fails leaves the video as it was", async () => {
  const failing = {
    get: (id: string) => store.get(id),
    requestCancel: (id: string) => store.requestCancel(id),
    delete: () => Promise.reject(new Error("killed here")),
  } as unknown as JobStore;
  const { DeleteVideo } = videoHandlers({ ...gateway, store: failing });
  await expect(DeleteVideo({ name: `videos/${waiting}` }, callInfo())).rejects.toThrow("killed here");
  expect((await store.get(waiting)).state.kind).toBe("queued");
});
