// Small in-process text-encoder, router and decoder on unix sockets, and a real store, for tests of the scheduler. Fixture only.
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MoevieError, type DecodeRequest, type DecodeResponse, type DenoiseHead } from "@moevie/contracts";
import { createSampler, guide, latentWindows, noiseSchedule, type SamplerName, seededNoise } from "@moevie/diffusion";
import { openSqliteStore, type JobRecord, type JobSpec, type JobStore, type SqliteJobStore } from "@moevie/job-store";
import {
  createLogger,
  GrpcPeer,
  implement,
  Metrics,
  openTracing,
  serveGrpc,
  systemClock,
  type Clock,
  type GrpcServer,
  type GrpcService,
  type Loose,
} from "@moevie/runtime";
import type { SchedulerSettings } from "./job-run.ts";
import type { ModelFacts } from "./model-facts.ts";
import { StandInRouter, velocityOf, type RouterHooks, type RouterLog } from "./router.fixture.ts";
import { latentShape, type LatentShape } from "./start-latent.ts";
import { startScheduler, type Scheduler } from "./service.ts";

export const MODEL: ModelFacts = {
  digest: "d1",
  frameRate: 8,
  latent: {
    channels: 2,
    temporalStride: 4,
    spatialStride: 16,
    patch: [1, 1],
    size: { height: 48, width: 64 },
    toRgb: [
      [0.5, 0, 0],
      [0, 0.5, 0.25],
    ],
    toRgbBias: [0, 0, 0],
  },
  windows: { frames: 3, overlap: 2, leadIn: 1, period: 4 },
  schedule: { shift: 3, grid: "diffusers" },
  sigmas: {},
};
/** One second at 8 frames a second: 9 model frames, 3 latent frames. */
export const SHAPE = [2, 3, 3, 4] as const;

export const SPEC: JobSpec = {
  prompt: "a red fox",
  negativePrompt: "",
  seed: 7,
  width: 64,
  height: 48,
  seconds: 1,
  fps: 24,
  quality: "standard",
  colorCorrection: true,
  steps: 8,
  guidance: 4,
  sampler: "unipc",
  model: "tiny",
};

const WIDTH = 3;
const TOKENS = 2;

function contextRows(text: string): Buffer {
  const seed = createHash("sha256").update(text).digest().readUInt32LE(0);
  const rows = seededNoise(seed, [TOKENS, WIDTH]);
  return Buffer.from(rows.buffer);
}

function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** The same guided and blended over the windows of a latent of `shape`, in plain loops. */
function blended(spec: JobSpec, latent: Float32Array, shape: LatentShape, timestep: number): Float32Array {
  const [channels, frames, height, width] = shape;
  const area = height * width;
  const velocity = new Float32Array(latent.length);
  for (const { start, origin, weights } of latentWindows(frames, MODEL.windows)) {
    const count = weights.length * area;
    const from = (i: number): number => (Math.floor(i / count) * frames + start) * area + (i % count);
    const part = Float32Array.from({ length: channels * count }, (_, i) => latent[from(i)] ?? NaN);
    const guided = velocityOf(part, timestep, contextRows(spec.prompt), origin);
    const base = velocityOf(part, timestep, contextRows(spec.negativePrompt), origin);
    if (spec.guidance > 1) guide(guided, base, spec.guidance, guided);
    for (const [i, value] of guided.entries()) {
      const to = from(i);
      velocity[to] = (velocity[to] ?? NaN) + (weights[Math.floor((i % count) / area)] ?? NaN) * value;
    }
  }
  return velocity;
}

/** The stand-in clip of a latent: large enough for several chunks. */
function clipOf(latent: Buffer): Buffer {
  return Buffer.concat(
    Array.from({ length: 300 }, (_, i) => createHash("sha256").update(`${i}`).update(latent).digest()),
  );
}

/** The clip an undisturbed run of `spec` must give, computed without scheduler or sockets. */
export function expectedClip(spec: JobSpec): Buffer {
  const schedule = noiseSchedule({ steps: spec.steps, ...MODEL.schedule });
  const sampler = createSampler(spec.sampler as SamplerName, schedule);
  const shape = latentShape(spec, MODEL);
  const latent = seededNoise(spec.seed, shape);
  for (let i = 0; i < spec.steps; i++) {
    sampler.step(i, latent, blended(spec, latent, shape, schedule.timesteps[i] ?? NaN));
  }
  return clipOf(Buffer.from(latent.buffer));
}

/** Hooks run inside the stand-ins; a test replaces them with gates and errors. */
export interface Hooks extends RouterHooks {
  /** Before each message of the decoder; `call` counts calls from 1, `message` messages from 0. */
  decode: (call: number, message: number) => Promise<void>;
  /** Changes what the decoder says of the clip. */
  clipSha256: (sha256: string) => string;
}

export class FakeCluster implements RouterLog {
  readonly folder = mkdtempSync(join(tmpdir(), "moevie-sched-"));
  readonly hooks: Hooks = {
    denoise: () => Promise.resolve(),
    streamGoesOn: () => true,
    decode: () => Promise.resolve(),
    clipSha256: (sha) => sha,
  };
  readonly denoiseHeads: DenoiseHead[] = [];
  readonly contextVariants: string[] = [];
  denoiseStreams = 0;
  /** Each with contexts of its own. */
  readonly routers: StandInRouter[] = [];
  #routerAddress = this.#address("router");
  readonly metrics = new Metrics("test");
  encodeCalls = 0;
  decodeCalls = 0;
  readonly #servers: GrpcServer[] = [];
  readonly #closers: (() => Promise<void> | void)[] = [];

  /** Serves the named stand-ins; all of them by default. */
  async serve(names: readonly ("text" | "router" | "decoder")[] = ["text", "router", "decoder"]): Promise<void> {
    const services = {
      text: () => this.#textEncoder(),
      router: () => this.#router(),
      decoder: () => this.#decoder(),
    };
    for (const name of names) await this.#listen(this.#address(name), services[name]());
  }

  /** Serves so many routers on ports of their own, behind one address; `close` ends the one of that number. */
  async serveRouters(count: number): Promise<{ close: (number: number) => Promise<void> }> {
    const servers: GrpcServer[] = [];
    for (let number = 0; number < count; number++) servers.push(await this.#listen("127.0.0.1:0", this.#router()));
    this.#routerAddress = `ipv4:${servers.map(({ address }) => address).join(",")}`;
    return { close: async (number) => await servers[number]?.close(0) };
  }

  async #listen(listen: string, service: GrpcService): Promise<GrpcServer> {
    const log = await createLogger({ service: "test", level: "silent", format: "json" });
    const server = await serveGrpc({
      listen,
      services: [service],
      log,
      metrics: new Metrics("peer"),
      reflection: false,
    });
    this.#servers.push(server);
    return server;
  }

  #address(name: string): string {
    return `unix:${join(this.folder, name)}`;
  }

  openStore(): Promise<SqliteJobStore> {
    return openSqliteStore(join(this.folder, "data", "jobs.db")).then((store) => {
      this.#closers.push(() => store.close());
      return store;
    });
  }

  /** Starts a scheduler; `stop` drains it. */
  async schedule(
    store: JobStore,
    settings: Partial<SchedulerSettings> = {},
    clock: Clock = systemClock,
  ): Promise<Scheduler & { stop: () => Promise<void> }> {
    const drain = new AbortController();
    const peers = {
      textEncoder: new GrpcPeer("moevie.v1.TextEncoderService", this.#address("text")),
      router: new GrpcPeer("moevie.v1.DenoiseService", this.#routerAddress),
      decoder: new GrpcPeer("moevie.v1.DecodeService", this.#address("decoder")),
    };
    const scheduler = startScheduler({
      store,
      model: MODEL,
      peers,
      settings: {
        owner: "a",
        jobsRunningMax: 2,
        checkpointSteps: 2,
        // At every second step, whatever it takes: cases count the steps that are made again.
        checkpointShareMax: Infinity,
        previewSteps: 4,
        referenceDir: "",
        leaseMs: 10_000,
        leaseRenewMs: 50,
        retry: { firstPauseMs: 5, pauseMsMax: 20, totalMsMax: 20_000 },
        ...settings,
      },
      log: await createLogger({ service: "test", level: "silent", format: "json" }),
      metrics: this.metrics,
      tracing: await openTracing({ service: "test", endpoint: "", sampleRatio: 0 }),
      clock,
      signal: drain.signal,
    });
    const stop = async (): Promise<void> => {
      drain.abort(new MoevieError("DRAINING", "The service is going away."));
      await scheduler.stopped;
      for (const peer of Object.values(peers)) peer.close();
    };
    this.#closers.unshift(stop);
    return { ...scheduler, stop };
  }

  async close(): Promise<void> {
    for (const close of this.#closers) await close();
    for (const server of this.#servers) await server.close(50);
    rmSync(this.folder, { recursive: true, force: true });
  }

  #textEncoder(): GrpcService {
    return implement("moevie.v1.TextEncoderService", {
      Encode: ({ texts }) => {
        this.encodeCalls++;
        const contexts = texts.map((text) => {
          const rows = contextRows(text);
          return { contextHash: sha256(rows), rows, tokenCount: TOKENS, width: WIDTH, usedTokenCount: 1 };
        });
        return Promise.resolve({ contexts });
      },
    });
  }

  #router(): GrpcService {
    const router = new StandInRouter(this);
    this.routers.push(router);
    return router.service();
  }

  #decoder(): GrpcService {
    return implement("moevie.v1.DecodeService", { Decode: (requests) => answerDecode(this, requests) });
  }
}

async function* answerDecode(
  cluster: FakeCluster,
  requests: AsyncIterable<DecodeRequest>,
): AsyncGenerator<Loose<DecodeResponse>> {
  const call = ++cluster.decodeCalls;
  const { head, bytes } = await received(requests);
  const clip = clipOf(bytes);
  const { frameCount = 0, fps = 0, width = 0, height = 0 } = head ?? {};
  const facts = {
    sizeBytes: clip.length,
    sha256: cluster.hooks.clipSha256(sha256(clip)),
    codec: "h264",
    pixelFormat: "yuv420p",
    width,
    height,
    fps,
    frameCount,
  };
  const messages: Loose<DecodeResponse>[] = [
    { progress: { framesEncoded: Math.floor(frameCount / 2), frameCount } },
    { mp4Chunk: clip.subarray(0, 4000) },
    { mp4Chunk: clip.subarray(4000) },
    { facts },
  ];
  for (const [i, message] of messages.entries()) {
    await cluster.hooks.decode(call, i);
    yield message;
  }
}

async function received<H>(
  requests: AsyncIterable<{ head?: H; chunk?: Buffer }>,
): Promise<{ head: H | undefined; bytes: Buffer }> {
  let head: H | undefined;
  const chunks: Buffer[] = [];
  for await (const request of requests) {
    head ??= request.head;
    if (request.chunk !== undefined) chunks.push(request.chunk);
  }
  return { head, bytes: Buffer.concat(chunks) };
}

/** Resolves with the record when `holds`. */
export async function until(store: JobStore, id: string, holds: (job: JobRecord) => boolean): Promise<JobRecord> {
  const signal = AbortSignal.timeout(20_000);
  for (;;) {
    const after = store.changeCount;
    const job = await store.get(id);
    if (holds(job)) return job;
    await store.waitForChange({ after, signal });
  }
}

export function ended(job: JobRecord): boolean {
  return job.state.kind !== "queued" && job.state.kind !== "running";
}

/** The bytes of a completed job's clip. */
export async function clipBytes(store: JobStore, job: JobRecord): Promise<Buffer> {
  if (job.state.kind !== "completed") throw new Error(`the job is ${JSON.stringify(job.state)}`);
  const file = await store.artefacts.open({ id: job.id, token: job.state.token });
  const chunks: Buffer[] = [];
  for await (const chunk of file.read()) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}
