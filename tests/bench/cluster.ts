// Step and clip time of the cluster (1, 2 and 4 shards) against one process that runs the same model as one graph.
// The monolith is the faster of: two threads with a branch each, and one session of two threads with both branches batched.
// Everything runs in one call, in turns, so that a noisy machine troubles all of them alike; ratios count, seconds drift.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openBundle, type Bundle } from "@moevie/bundle";
import { createSampler, guide, noiseSchedule, seededNoise } from "@moevie/diffusion";
import { importStarter } from "@moevie/importer";
import type { DenoiseRequest, DenoiseResponse } from "@moevie/contracts";
import { GrpcPeer, OnnxThread, type BidiCall, type Loose, type TensorView } from "@moevie/runtime";
import { createHash } from "node:crypto";
import { writeTinyModel } from "../parity/tiny.ts";
import { ProcessGroup, ROOT, cpuSeconds, median, residentMiB } from "./support/processes.ts";

const ROUNDS = 5;
const STEPS = 20;
const SHARD_COUNTS = [1, 2, 4];
/** Velocity of both branches for a latent and a timestep. */
type StepRunner = (latent: Float32Array, timestep: number) => Promise<[Float32Array, Float32Array]>;

interface Subject {
  readonly name: string;
  readonly run: StepRunner;
  readonly close: () => Promise<void>;
  readonly pids: readonly number[];
}

function f32(dims: readonly number[], data: Float32Array): TensorView {
  return { type: "float32", dims, data };
}

function latentShape({ manifest }: Bundle): [number, number, number, number] {
  const { channels, spatialStride, temporalStride } = manifest.latent;
  return [
    channels,
    (manifest.modelFrames - 1) / temporalStride + 1,
    manifest.height / spatialStride,
    manifest.width / spatialStride,
  ];
}

/** Two threads, one branch each: both sessions hold the whole model. */
async function monolithTwoThreads(bundle: Bundle, contexts: readonly Float32Array[]): Promise<Subject> {
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
async function monolithBatched(bundle: Bundle, contexts: readonly Float32Array[]): Promise<Subject> {
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
        rows: f32([2, maxTokens, width], rows),
      };
      const velocity = (await thread.run("monolith", feeds, ["velocity"]))["velocity"]?.data as Float32Array;
      return [velocity.subarray(0, latent.length), velocity.subarray(latent.length)];
    },
    close: () => thread.close(),
  };
}

const CALL = { timeoutMs: 60_000 };

async function* chunks(head: object, bytes: Float32Array): AsyncIterable<Record<string, unknown>> {
  yield { head };
  yield { chunk: Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength) };
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

/** A router and its shards as processes; both branches are called at once, as the scheduler does. */
async function cluster(
  bundle: Bundle,
  folder: string,
  shards: number,
  contexts: readonly Float32Array[],
): Promise<Subject> {
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
    }),
  ]);
  const peer = new GrpcPeer("moevie.v1.DenoiseService", group.address("router"));
  const { maxTokens, width } = bundle.manifest.text;
  const shape = latentShape(bundle);
  const hashes = contexts.map((rows) =>
    createHash("sha256")
      .update(new Uint8Array(rows.buffer, rows.byteOffset, rows.byteLength))
      .digest("hex"),
  );
  for (const [branch, rows] of contexts.entries()) {
    await peer.clientStream(
      "PutContext",
      chunks(
        { contextHash: hashes[branch], rows: { elementType: "ELEMENT_TYPE_F32", shape: [maxTokens, width] } },
        rows,
      ),
      CALL,
    );
  }
  // One stream a branch for the whole clip, as the scheduler has.
  const streams = contexts.map(() => peer.open("Denoise", { timeoutMs: 600_000 }));
  const denoise = async (branch: number, latent: Float32Array, timestep: number): Promise<Float32Array> => {
    const head = {
      bundleDigest: bundle.digest,
      latent: { elementType: "ELEMENT_TYPE_F32" as const, shape },
      timestep,
      contextHash: hashes[branch] ?? "",
      branch: branch === 0 ? ("BRANCH_CONDITIONAL" as const) : ("BRANCH_UNCONDITIONAL" as const),
    };
    return evaluate(streams[branch] as DenoiseStream, head, latent);
  };
  return {
    name: `cluster, ${shards} shard${shards === 1 ? "" : "s"}`,
    pids: started.map((process) => process.pid),
    run: async (latent, timestep) => {
      const [conditional, unconditional] = await Promise.all([
        denoise(0, latent, timestep),
        denoise(1, latent, timestep),
      ]);
      return [conditional ?? latent, unconditional ?? latent];
    },
    close: async () => {
      for (const stream of streams) stream.cancel();
      peer.close();
      await group.close();
    },
  };
}

/** One clip's denoising: every step with both branches, guidance and sampler. Seconds, and the latent it ends in. */
async function denoiseClip(bundle: Bundle, subject: Subject): Promise<{ seconds: number; latent: Float32Array }> {
  const schedule = noiseSchedule({ steps: STEPS, shift: bundle.manifest.schedule.shift, grid: "diffusers" });
  const sampler = createSampler("unipc", schedule);
  const latent = seededNoise(7, latentShape(bundle));
  const guided = new Float32Array(latent.length);
  const startMs = performance.now();
  for (let step = 0; step < STEPS; step++) {
    const [conditional, unconditional] = await subject.run(latent, schedule.timesteps[step] ?? 0);
    guide(conditional, unconditional, bundle.manifest.guidance, guided);
    sampler.step(step, latent, guided);
  }
  return { seconds: (performance.now() - startMs) / 1000, latent };
}

async function compare(title: string, folder: string): Promise<object> {
  process.chdir("/");
  const bundle = await openBundle(folder);
  const { maxTokens, width, tokens } = { ...bundle.manifest.text, tokens: latentShape(bundle) };
  const contexts = [3, 4].map((seed) => seededNoise(seed, [1, 1, maxTokens, width]));
  const subjects: Subject[] = [await monolithTwoThreads(bundle, contexts), await monolithBatched(bundle, contexts)];
  for (const shards of SHARD_COUNTS) subjects.push(await cluster(bundle, folder, shards, contexts));
  const times = subjects.map((): number[] => []);
  const cpu = subjects.map((subject) => subject.pids.map(cpuSeconds));
  const ownCpu = subjects.map((): number[] => []);
  try {
    for (const subject of subjects) await denoiseClip(bundle, subject);
    for (let round = 0; round < ROUNDS; round++) {
      for (const [at, subject] of subjects.entries()) {
        const before = process.cpuUsage();
        times[at]?.push((await denoiseClip(bundle, subject)).seconds);
        const { user, system } = process.cpuUsage(before);
        ownCpu[at]?.push((user + system) / 1e6);
      }
    }
    const monolith = Math.min(median(times[0] ?? []), median(times[1] ?? []));
    const { denoiser } = bundle.manifest;
    const [, frames, height, columns] = tokens;
    console.log(
      `\n${title}: d ${denoiser.hidden}, ${denoiser.layers} layers, ${denoiser.experts} experts top-${denoiser.topK}, ${(frames * height * columns) / 4} tokens a branch; ${STEPS} guided steps, median of ${ROUNDS}`,
    );
    const rows = subjects.map((subject, at) => {
      const seconds = median(times[at] ?? []);
      const own = median(ownCpu[at] ?? []);
      const used = subject.pids.map((pid, index) => (cpuSeconds(pid) - (cpu[at]?.[index] ?? 0)) / (ROUNDS + 1));
      const cpuTotal = own + used.reduce((sum, value) => sum + value, 0);
      const step = ((seconds * 1000) / STEPS).toFixed(2);
      const parts =
        used.length === 0
          ? ""
          : ` (shards, router, caller: ${[...used, own].map((s) => (s * 1000).toFixed(0)).join(" ")})`;
      const memory = subject.pids.map((pid) => residentMiB(pid).toFixed(0)).join(" ");
      console.log(
        `  ${subject.name.padEnd(42)} ${(seconds * 1000).toFixed(0).padStart(6)} ms a clip ${step.padStart(7)} ms a step ` +
          `${(seconds / monolith).toFixed(3)} x monolith; CPU ${(cpuTotal * 1000).toFixed(0)} ms${parts}${memory === "" ? "" : `; MiB ${memory}`}`,
      );
      return {
        name: subject.name,
        clipSeconds: seconds,
        stepSeconds: seconds / STEPS,
        ratio: seconds / monolith,
        cpuSeconds: cpuTotal,
      };
    });
    return { title, rows };
  } finally {
    for (const subject of subjects) await subject.close();
  }
}

const scratch = mkdtempSync(join(tmpdir(), "moevie-bench-bundle-"));
try {
  const results: object[] = [];
  await importStarter(join(ROOT, "packages/starter-model/weights"), join(scratch, "starter"));
  results.push(await compare("starter model", join(scratch, "starter")));
  if (process.argv.includes("--wide")) {
    writeTinyModel(join(scratch, "wide-weights"), {
      width: 384,
      heads: 8,
      layers: 4,
      experts: 16,
      channels: 24,
      textWidth: 160,
      maxTokens: 48,
      frames: 17,
      pixelWidth: 144,
      pixelHeight: 80,
    });
    await importStarter(join(scratch, "wide-weights"), join(scratch, "wide"));
    results.push(await compare("random weights, wider", join(scratch, "wide")));
  }
  console.log(JSON.stringify(results));
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
process.exit(0);
