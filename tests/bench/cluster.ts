// Step and clip time of the cluster (1, 2 and 4 shards) against one process that runs the same model as one graph. The monolith
// is the faster of: two threads with a branch each, and one session of two threads with both branches batched. A clip is its
// denoising and the decoding of the default clip (1280x720, 24 fps, 2 s), which is the same decoder process for all of them.
// Everything runs in one call, in turns, so that a noisy machine troubles all of them alike; ratios count, seconds drift.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openBundle, type Bundle } from "@moevie/bundle";
import { createSampler, guide, noiseSchedule, seededNoise } from "@moevie/diffusion";
import { importStarter } from "@moevie/importer";
import { GrpcPeer } from "@moevie/runtime";
import { writeTinyModel } from "../parity/tiny.ts";
import { cluster, latentShape, monolithBatched, monolithTwoThreads, type Subject } from "./support/denoisers.ts";
import { ProcessGroup, ROOT, cpuSeconds, median, residentMiB, showTarget } from "./support/processes.ts";
import { tokenDenoiser } from "../support/token-denoiser.ts";

const ROUNDS = 7;
/** Clips before the first that counts: code is compiled while they run, as in a cluster that has been up for a minute. */
const WARM_UP_CLIPS = 4;
const STEPS = 20;
const SHARD_COUNTS = [1, 2, 4];
const DEFAULT_CLIP = { width: 1280, height: 720, fps: 24, frameCount: 48 };
/** Of a clip, MP4 included; a step alone has no bar of its own: see `bench overhead`. */
const TARGET_RATIO = 1.1;

/** One clip's denoising: every step with both branches, guidance and sampler. Seconds, and the latent it ends in. */
async function denoiseClip(bundle: Bundle, subject: Subject): Promise<{ seconds: number; latent: Float32Array }> {
  const schedule = noiseSchedule({ steps: STEPS, shift: bundle.manifest.schedule.shift, grid: "diffusers" });
  const sampler = createSampler("unipc", schedule);
  const latent = seededNoise(7, latentShape(bundle));
  const guided = new Float32Array(latent.length);
  const startMs = performance.now();
  for (let step = 0; step < STEPS; step++) {
    const [conditional, unconditional] = await subject.run(latent, schedule.timesteps[step] ?? 0);
    guide(conditional, unconditional, bundle.manifest.variants.standard.guidance, guided);
    sampler.step(step, latent, guided);
  }
  return { seconds: (performance.now() - startMs) / 1000, latent };
}

interface Decoder {
  /** Seconds from the latent to the last byte of its MP4. */
  readonly decode: (latent: Float32Array) => Promise<number>;
  readonly close: () => Promise<void>;
}

async function startDecoder(bundle: Bundle, folder: string): Promise<Decoder> {
  const group = new ProcessGroup();
  await group.start("decoder", "decoder", { MOEVIE_BUNDLE: folder });
  const peer = new GrpcPeer("moevie.v1.DecodeService", group.address("decoder"));
  const tensor = { elementType: "ELEMENT_TYPE_F32" as const, shape: [...latentShape(bundle)] };
  const head = { bundleDigest: bundle.digest, latent: tensor, ...DEFAULT_CLIP };
  async function* request(latent: Float32Array): AsyncIterable<{ head: typeof head } | { chunk: Buffer }> {
    yield { head };
    yield { chunk: Buffer.from(latent.buffer, latent.byteOffset, latent.byteLength) };
  }
  return {
    decode: async (latent) => {
      const startMs = performance.now();
      let frames = 0;
      for await (const { facts } of peer.bidi("Decode", request(latent), { timeoutMs: 60_000 }))
        if (facts !== undefined) frames = facts.frameCount;
      if (frames !== DEFAULT_CLIP.frameCount) throw new Error(`${frames} frames were decoded`);
      return (performance.now() - startMs) / 1000;
    },
    close: async () => {
      peer.close();
      await group.close();
    },
  };
}

interface Measured {
  readonly subject: Subject;
  readonly seconds: number[];
  readonly clipSeconds: number[];
  readonly ownCpuSeconds: number[];
  readonly cpuSeconds: number[];
}

async function measure(bundle: Bundle, subjects: readonly Subject[], decoder: Decoder): Promise<Measured[]> {
  const all = subjects.map((subject) => ({
    subject,
    seconds: [],
    clipSeconds: [],
    ownCpuSeconds: [],
    cpuSeconds: [],
  })) as Measured[];
  for (const subject of subjects)
    for (let clip = 0; clip < WARM_UP_CLIPS; clip++) await decoder.decode((await denoiseClip(bundle, subject)).latent);
  for (let round = 0; round < ROUNDS; round++) {
    for (const { subject, ...figures } of all) {
      const own = process.cpuUsage();
      const others = subject.pids.map(cpuSeconds);
      const { seconds, latent } = await denoiseClip(bundle, subject);
      const { user, system } = process.cpuUsage(own);
      figures.seconds.push(seconds);
      figures.ownCpuSeconds.push((user + system) / 1e6);
      figures.cpuSeconds.push(
        subject.pids.reduce((sum, pid, index) => sum + cpuSeconds(pid) - (others[index] ?? 0), (user + system) / 1e6),
      );
      figures.clipSeconds.push(seconds + (await decoder.decode(latent)));
    }
  }
  return all;
}

function report(title: string, bundle: Bundle, all: readonly Measured[]): object {
  const denoiser = tokenDenoiser(bundle);
  const [, frames, height, columns] = latentShape(bundle);
  console.log(
    `\n${title}: d ${denoiser.hidden}, ${denoiser.layers} layers, ${denoiser.experts} experts top-${denoiser.topK}, ` +
      `${(frames * height * columns) / 4} tokens a branch; ${STEPS} guided steps, medians of ${ROUNDS}`,
  );
  const fastest = (figure: "seconds" | "clipSeconds"): number =>
    Math.min(median(all[0]?.[figure] ?? []), median(all[1]?.[figure] ?? []));
  const [denoiseBase, clipBase] = [fastest("seconds"), fastest("clipSeconds")];
  console.log(`  ${"".padEnd(40)}     ms a step  x monolith   CPU ms a step    ms a clip  x monolith   MiB`);
  const rows = all.map(({ subject, seconds, clipSeconds, cpuSeconds: cpu }) => {
    const row = {
      name: subject.name,
      stepSeconds: median(seconds) / STEPS,
      stepRatio: median(seconds) / denoiseBase,
      stepCpuSeconds: median(cpu) / STEPS,
      clipSeconds: median(clipSeconds),
      clipRatio: median(clipSeconds) / clipBase,
      mebibytes: subject.pids.map(residentMiB),
    };
    console.log(
      `  ${row.name.padEnd(40)} ${(row.stepSeconds * 1000).toFixed(2).padStart(13)} ${row.stepRatio.toFixed(2).padStart(11)} ` +
        `${(row.stepCpuSeconds * 1000).toFixed(2).padStart(15)} ${(row.clipSeconds * 1000).toFixed(0).padStart(12)} ` +
        `${row.clipRatio.toFixed(2).padStart(11)}   ${row.mebibytes.map((value) => value.toFixed(0)).join(" ")}`,
    );
    return row;
  });
  for (const row of rows.slice(2)) {
    showTarget(`clip of ${row.name}`, row.clipRatio, "x monolith", "at most", TARGET_RATIO);
  }
  const met = rows.slice(2).every((row) => row.clipRatio <= TARGET_RATIO);
  return { title, rows, targets: { ratio: TARGET_RATIO }, met };
}

async function compare(title: string, folder: string): Promise<object> {
  process.chdir("/");
  const bundle = await openBundle(folder);
  const { maxTokens, width } = bundle.manifest.text;
  const contexts = [3, 4].map((seed) => seededNoise(seed, [1, 1, maxTokens, width]));
  const decoder = await startDecoder(bundle, folder);
  const subjects: Subject[] = [await monolithTwoThreads(bundle, contexts), await monolithBatched(bundle, contexts)];
  for (const shards of SHARD_COUNTS) subjects.push(await cluster(bundle, folder, shards, contexts));
  try {
    return report(title, bundle, await measure(bundle, subjects, decoder));
  } finally {
    for (const subject of subjects) await subject.close();
    await decoder.close();
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
