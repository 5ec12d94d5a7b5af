// What the cluster bench compares: the same denoiser as one graph in this process, and as a router with shards of its own.
import { createHash } from "node:crypto";
import type { Bundle } from "@moevie/bundle";
import type { DenoiseRequest, DenoiseResponse } from "@moevie/contracts";
import { GrpcPeer, OnnxThread, type BidiCall, type Loose, type TensorView } from "@moevie/runtime";
import { ProcessGroup } from "./processes.ts";

/** Velocity of both branches for a latent and a timestep. */
type StepRunner = (latent: Float32Array, timestep: number) => Promise<[Float32Array, Float32Array]>;

export interface Subject {
  readonly name: string;
  readonly run: StepRunner;
  readonly close: () => Promise<void>;
  readonly pids: readonly number[];
}

function f32(dims: readonly number[], data: Float32Array): TensorView {
  return { type: "float32", dims, data };
}

export function latentShape({ manifest }: Bundle): [number, number, number, number] {
  const { channels, spatialStride, temporalStride } = manifest.latent;
  return [
    channels,
    (manifest.modelFrames - 1) / temporalStride + 1,
    manifest.height / spatialStride,
    manifest.width / spatialStride,
  ];
}

/** Two threads, one branch each: both sessions hold the whole model. */
export async function monolithTwoThreads(bundle: Bundle, contexts: readonly Float32Array[]): Promise<Subject> {
  const model = await bundle.graph("monolith");
  const threads = [0, 1].map((index) =>
    OnnxThread.start({ name: `monolith-${index}`, device: "cpu", intraOpThreads: 1 }),
  );
  for (const thread of threads) await thread.load("monolith", model);
  const { maxTokens, width } = bundle.manifest.text;
  const shape = latentShape(bundle);
  return {
    name: "monolith, 2 threads x 1 branch",
    pids: [],
    run: async (latent, timestep) => {
      const velocities = await Promise.all(
        threads.map(async (thread, branch) => {
          const feeds = {
            latent: f32([1, ...shape], latent),
            timestep: f32([1], Float32Array.of(timestep)),
            origin: f32([1], Float32Array.of(0)),
            rows: f32([1, maxTokens, width], contexts[branch] ?? new Float32Array()),
          };
          return (await thread.run("monolith", feeds, ["velocity"]))["velocity"]?.data as Float32Array;
        }),
      );
      return [velocities[0] ?? latent, velocities[1] ?? latent];
    },
    close: async () => void (await Promise.all(threads.map((thread) => thread.close()))),
  };
}

/** One session of two threads, both branches in one batch. */
export async function monolithBatched(bundle: Bundle, contexts: readonly Float32Array[]): Promise<Subject> {
  const thread = OnnxThread.start({ name: "monolith", device: "cpu", intraOpThreads: 2 });
  await thread.load("monolith", await bundle.graph("monolith"));
  const { maxTokens, width } = bundle.manifest.text;
  const shape = latentShape(bundle);
  const rows = new Float32Array(2 * maxTokens * width);
  for (const [branch, context] of contexts.entries()) rows.set(context, branch * maxTokens * width);
  return {
    name: "monolith, 1 session x 2 threads, batched",
    pids: [],
    run: async (latent, timestep) => {
      const both = new Float32Array(latent.length * 2);
      both.set(latent);
      both.set(latent, latent.length);
      const feeds = {
        latent: f32([2, ...shape], both),
        timestep: f32([2], Float32Array.of(timestep, timestep)),
        origin: f32([1], Float32Array.of(0)),
        rows: f32([2, maxTokens, width], rows),
      };
      const velocity = (await thread.run("monolith", feeds, ["velocity"]))["velocity"]?.data as Float32Array;
      return [velocity.subarray(0, latent.length), velocity.subarray(latent.length)];
    },
    close: () => thread.close(),
  };
}

type DenoiseStream = BidiCall<Loose<DenoiseRequest>, DenoiseResponse>;

/** One evaluation on a stream that stays open: the velocity of `latent`. */
async function evaluate(
  stream: DenoiseStream,
  head: NonNullable<Loose<DenoiseRequest>["head"]>,
  latent: Float32Array,
): Promise<Float32Array> {
  const bytes = Buffer.from(latent.buffer, latent.byteOffset, latent.byteLength);
  await stream.send({ head });
  await stream.send({ chunk: bytes });
  const velocity = new Uint8Array(bytes.length);
  for (let filled = 0; filled < bytes.length;) {
    const answer = await stream.receive();
    if (answer === undefined) throw new Error("the router ended the stream");
    if (answer.chunk === undefined) continue;
    velocity.set(answer.chunk, filled);
    filled += answer.chunk.length;
  }
  return new Float32Array(velocity.buffer);
}

/** What asks a router for one job's evaluations: a stream a branch. */
interface JobStreams {
  readonly run: StepRunner;
  /** One branch alone. */
  readonly evaluate: (branch: number, latent: Float32Array, timestep: number) => Promise<Float32Array>;
  readonly close: () => void;
}

export interface ClusterSubject extends Subject {
  readonly shardAddresses: readonly string[];
  /** The router's HTTP edge. */
  readonly routerHttp: string;
  readonly evaluate: JobStreams["evaluate"];
  /** One more job on latents [channels, frames, height, width]. */
  readonly job: (shape: readonly number[], contexts: readonly Float32Array[]) => Promise<JobStreams>;
}

/** Streams of a job, one for each of `contexts`. */
export async function openJob(
  bundle: Bundle,
  peer: GrpcPeer<"moevie.v1.DenoiseService">,
  shape: readonly number[],
  contexts: readonly Float32Array[],
): Promise<JobStreams> {
  const { maxTokens, width } = bundle.manifest.text;
  const hashes = contexts.map((rows) =>
    createHash("sha256")
      .update(new Uint8Array(rows.buffer, rows.byteOffset, rows.byteLength))
      .digest("hex"),
  );
  // One stream a branch for the whole clip, as the scheduler has.
  const streams = contexts.map(() => peer.open("Denoise", { timeoutMs: 600_000 }));
  for (const [branch, rows] of contexts.entries()) {
    const tensor = { elementType: "ELEMENT_TYPE_F32" as const, shape: [maxTokens, width] };
    await streams[branch]?.send({ context: { contextHash: hashes[branch] ?? "", rows: tensor } });
    await streams[branch]?.send({ chunk: Buffer.from(rows.buffer, rows.byteOffset, rows.byteLength) });
  }
  const denoise = (branch: number, latent: Float32Array, timestep: number): Promise<Float32Array> => {
    const head = {
      bundleDigest: bundle.digest,
      latent: { elementType: "ELEMENT_TYPE_F32" as const, shape: [...shape] },
      timestep,
      contextHash: hashes[branch] ?? "",
      branch: branch === 0 ? ("BRANCH_CONDITIONAL" as const) : ("BRANCH_UNCONDITIONAL" as const),
    };
    return evaluate(streams[branch] as DenoiseStream, head, latent);
  };
  return {
    run: (latent, timestep) => Promise.all([denoise(0, latent, timestep), denoise(1, latent, timestep)]),
    evaluate: denoise,
    close: () => streams.forEach((stream) => stream.cancel()),
  };
}

/** A router and its shards as processes; both branches are called at once, as the scheduler does. `router`: further settings of the router. */
export async function cluster(
  bundle: Bundle,
  folder: string,
  shards: number,
  contexts: readonly Float32Array[],
  router: Readonly<Record<string, string>> = {},
): Promise<ClusterSubject> {
  const group = new ProcessGroup();
  const names = Array.from({ length: shards }, (_, index) => `shard-${index}`);
  const started = await Promise.all([
    ...names.map((name, index) =>
      group.start("expert-shard", name, {
        MOEVIE_BUNDLE: folder,
        MOEVIE_SHARD_INDEX: `${index}`,
        MOEVIE_SHARD_COUNT: `${shards}`,
      }),
    ),
    group.start("router", "router", {
      MOEVIE_BUNDLE: folder,
      MOEVIE_SHARDS: names.map((name) => group.address(name)).join(","),
      ...router,
    }),
  ]);
  const peer = new GrpcPeer("moevie.v1.DenoiseService", group.address("router"));
  const own = await openJob(bundle, peer, latentShape(bundle), contexts);
  return {
    name: `cluster, ${shards} shard${shards === 1 ? "" : "s"}`,
    pids: started.map((process) => process.pid),
    shardAddresses: names.map((name) => group.address(name)),
    routerHttp: group.address("router.http"),
    run: own.run,
    evaluate: own.evaluate,
    job: (shape, texts) => openJob(bundle, peer, shape, texts),
    close: async () => {
      own.close();
      peer.close();
      await group.close();
    },
  };
}
