// What is stored for a request, and which request counts as the same one.
import { createHash } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { messageCodec, type CreateVideoRequest } from "@moevie/contracts";
import { openSqliteStore, type JobStore } from "@moevie/job-store";
import { Metrics, createLogger, openTracing, type CallInfo } from "@moevie/runtime";
import { afterEach, beforeEach, expect, test } from "vitest";
import { OpenCalls, type Gateway } from "./api.ts";
import { createVideo } from "./create-video.ts";
import { MODEL as PLAIN } from "./model.fixture.ts";

const MODEL = {
  ...PLAIN,
  variants: { standard: { steps: 4, guidance: 5 }, draft: { steps: 3, guidance: 1 } },
};
const CALL = { traceparent: undefined } as unknown as CallInfo;
const REQUEST_ID = "6f0d1c2e-3b4a-4c5d-8e9f-0a1b2c3d4e5f";

let folder: string;
let store: JobStore;
let gateway: Gateway;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "moevie-create-"));
  store = await openSqliteStore(join(folder, "jobs.db"));
  gateway = {
    store,
    model: MODEL,
    bundleDigest: "d",
    metrics: new Metrics("gateway"),
    tracing: await openTracing({ service: "gateway", endpoint: "", sampleRatio: 0 }),
    log: await createLogger({ service: "gateway", level: "fatal", format: "json" }),
    logPrompts: false,
    calls: new OpenCalls(),
    signal: new AbortController().signal,
  };
});
afterEach(async () => {
  await store.close();
  await rm(folder, { recursive: true, force: true });
});

/** The request as it comes off the wire. */
function received(request: object): CreateVideoRequest {
  const codec = messageCodec("moevie.v1.CreateVideoRequest");
  return codec.decode(codec.encode(request)) as CreateVideoRequest;
}

test("a draft is stored as one, with its own steps and guidance", async () => {
  const job = await createVideo(gateway, received({ spec: { prompt: "a dog", quality: "QUALITY_DRAFT" } }), CALL);
  expect(job.spec).toMatchObject({ quality: "draft", steps: 3, guidance: 1 });
});

/** Fields that such a build does not know. */
const LATER = ["quality", "grid", "initialNoise", "saveLatents", "saveFrames"];

test("a request_id that a build without qualities and grids stored is still the same request; with a quality it is another", async () => {
  const request = received({ spec: { prompt: "a dog", seed: 1 }, requestId: REQUEST_ID });
  const entries = Object.entries(request.spec ?? {}).filter(([key]) => !LATER.includes(key));
  const body = JSON.stringify(entries.toSorted(([a], [b]) => (a < b ? -1 : 1)));
  const requestDigest = createHash("sha256").update(body).digest("hex");
  const { spec } = await createVideo(gateway, received({ spec: { prompt: "a dog", seed: 1 } }), CALL);
  const stored = await store.submit(spec, { requestId: REQUEST_ID, requestDigest });
  expect(await createVideo(gateway, request, CALL)).toMatchObject({ id: stored.id, repeated: true });
  const draft = received({ spec: { prompt: "a dog", seed: 1, quality: "QUALITY_DRAFT" }, requestId: REQUEST_ID });
  await expect(createVideo(gateway, draft, CALL)).rejects.toMatchObject({ reason: "REQUEST_ID_REUSED" });
});
