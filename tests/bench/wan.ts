// Prompt to clip, side by side with diffusers' own pipeline on the same folders, in turns in one run: the tiny Wan2.2 of the tests, and one
// of about 100 million parameters. Ours are whole clusters of real processes and end in an MP4; diffusers' end in frames. Each side is
// taken at its best of one thread and two, branches batched or apart. Then one evaluation of the larger against the rate of a linear layer.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openBundle } from "@moevie/bundle";
import { VideoClient } from "@moevie/client";
import { seededNoise } from "@moevie/diffusion";
import { importModel } from "@moevie/importer";
import { startCluster } from "./support/cluster.ts";
import { ProcessGroup, ROOT, median, showTarget } from "./support/processes.ts";
import { PythonPeer, pythonWith } from "./support/python.ts";
import { LinearLayer, WanEngine, secondsOf } from "./support/wan-engine.ts";

const PROMPT = "a golden dog runs along the beach";
const NEGATIVE = "blurry";
const WAIT_MS = 60_000;

interface Case {
  readonly name: string;
  readonly folder: string;
  readonly experts: number;
  readonly width: number;
  readonly height: number;
  readonly frames: number;
  readonly steps: number;
  readonly rounds: number;
  readonly target: number;
}

/** A way to make the clip: its name, and seconds from prompt to end. */
interface Way {
  readonly name: string;
  readonly clip: () => Promise<number>;
  readonly close: () => Promise<void>;
}

/** A cluster with so many shards of each expert and threads in each. */
async function clusterWay(given: Case, bundle: string, data: string, copies: number, threads: number): Promise<Way> {
  const group = new ProcessGroup();
  await startCluster(group, { bundle, data, shards: given.experts * copies, threads });
  const client = new VideoClient(group.address("gateway"));
  const { width, height, frames, steps } = given;
  const spec = { prompt: PROMPT, negativePrompt: NEGATIVE, size: `${width}x${height}`, frames, steps, seed: 1 };
  return {
    name: `moevie, ${copies} shard${copies > 1 ? "s" : ""} an expert, ${threads} thread${threads > 1 ? "s" : ""} each`,
    clip: () =>
      secondsOf(async () => {
        const levels = given.experts > 1 ? { guidanceLow: 3 } : {};
        let now = await client.createVideo({ ...spec, ...levels, guidance: 4 });
        while (!now.done) now = await client.waitOperation(now.name, WAIT_MS);
        const video = await client.getVideo(now.name.replace(/^operations\//, "videos/"));
        if (video.error !== null) throw new Error(video.error.message);
      }),
    close: async () => {
      client.close();
      await group.close();
    },
  };
}

function diffusersWay(given: Case, peer: PythonPeer, threads: number, batched: boolean): Way {
  const { width, height, frames, steps } = given;
  const call = { threads, batched, width, height, frames, steps, prompt: PROMPT, negative: NEGATIVE };
  return {
    name: `diffusers, ${threads} thread${threads > 1 ? "s" : ""}, branches ${batched ? "batched" : "apart"}`,
    clip: async () => (await peer.ask<{ seconds: number }>("clip", { ...call, guidance: 4, guidance_2: 3 })).seconds,
    close: () => Promise.resolve(),
  };
}

async function compare(given: Case, scratch: string, peer: PythonPeer): Promise<void> {
  const { name, folder, width, height, frames, steps } = given;
  const bundle = join(scratch, `${name}-bundle`);
  await importModel(folder, bundle);
  await peer.ask("open", { folder });
  const data = (way: string): string => join(scratch, `${name}-${way}`);
  const ways = [
    await clusterWay(given, bundle, data("apart"), 2, 1),
    await clusterWay(given, bundle, data("one"), 1, 1),
    await clusterWay(given, bundle, data("threads"), 1, 2),
    ...[1, 2].flatMap((threads) => [false, true].map((batched) => diffusersWay(given, peer, threads, batched))),
  ];
  const seconds = ways.map(() => [] as number[]);
  try {
    for (let round = 0; round <= given.rounds; round++)
      for (const [index, way] of ways.entries()) {
        const took = await way.clip();
        // The first warms up.
        if (round > 0) seconds[index]!.push(took);
      }
  } finally {
    for (const way of ways) await way.close();
  }
  console.log(`\n${name}: ${frames} frames of ${width}x${height}, ${steps} guided steps, medians of ${given.rounds}`);
  const medians = seconds.map(median);
  for (const [index, way] of ways.entries()) console.log(`  ${medians[index]!.toFixed(3).padStart(9)} s  ${way.name}`);
  const best = (side: string): number => Math.min(...medians.filter((_, index) => ways[index]!.name.startsWith(side)));
  showTarget("clip", best("diffusers") / best("moevie"), "x as fast as diffusers", "at least", given.target);
}

const MIDDLE = { width: 768, inner: 3072, layers: 10, text: 512, textWidth: 256 } as const;
const SHAPE = [16, 5, 32, 32] as const;
const TOKENS = 1280;

/** Of one evaluation of the larger model: what its blocks multiply and add, twice. */
function evaluationGigaflops(): number {
  const { width, inner, layers, text } = MIDDLE;
  const linear = 2 * TOKENS * width ** 2 * 6 + 2 * text * width ** 2 * 2 + 4 * TOKENS * width * inner;
  return (layers * (linear + 4 * TOKENS ** 2 * width + 4 * TOKENS * text * width)) / 1e9;
}

/** One evaluation against a linear layer of the same width, each on its own core twice over. */
async function compareRates(bundleFolder: string, scratch: string, peer: PythonPeer): Promise<void> {
  const bundle = await openBundle(bundleFolder);
  const layerSize = [TOKENS, MIDDLE.width, MIDDLE.inner] as const;
  const layerGigaflops = (2 * layerSize[0] * layerSize[1] * layerSize[2]) / 1e9;
  const context = seededNoise(5, [1, 1, MIDDLE.text, MIDDLE.textWidth]);
  const { text: tokens, textWidth } = MIDDLE;
  const given = { latent: seededNoise(4, SHAPE), shape: SHAPE, contexts: [context], tokens, textWidth };
  console.log(`\none evaluation at ${TOKENS} tokens, GFLOP/s`);
  const best = { ours: 0, torch: 0, gemm: 0 };
  for (const threads of [1, 2]) {
    const engine = await WanEngine.start(bundle, "denoiser", threads);
    const layer = await LinearLayer.start(scratch, threads, layerSize);
    const rates = { ours: [] as number[], torch: [] as number[], gemm: [] as number[], torchGemm: [] as number[] };
    const [rows, inner, columns] = layerSize;
    for (let round = 0; round <= 5; round++) {
      const forward = { threads, shape: SHAPE.slice(1), batch: 1 };
      const turn = {
        ours: evaluationGigaflops() / (await secondsOf(() => engine.evaluate(given))),
        torch: evaluationGigaflops() / (await peer.ask<{ seconds: number }>("forward", forward)).seconds,
        gemm: layerGigaflops / (await secondsOf(() => layer.run())),
        torchGemm:
          layerGigaflops / (await peer.ask<{ seconds: number }>("gemm", { threads, rows, inner, columns })).seconds,
      };
      if (round > 0) for (const [name, rate] of Object.entries(turn)) rates[name as keyof typeof rates].push(rate);
    }
    await engine.close();
    await layer.close();
    const [ours, torch, gemm, torchGemm] = Object.values(rates).map(median) as [number, number, number, number];
    console.log(
      `  ${threads} thread${threads > 1 ? "s" : ""}: ${ours.toFixed(1)}, PyTorch ${torch.toFixed(1)}; a linear layer ${gemm.toFixed(1)}, PyTorch's ${torchGemm.toFixed(1)}`,
    );
    best.ours = Math.max(best.ours, ours);
    best.torch = Math.max(best.torch, torch);
    best.gemm = Math.max(best.gemm, gemm, torchGemm);
  }
  showTarget("evaluation", best.ours / best.torch, "x PyTorch's rate", "at least", 1);
  showTarget("evaluation", best.ours / best.gemm, "x the faster linear layer's rate", "at least", 0.8);
}

const scratch = mkdtempSync(join(tmpdir(), "moevie-bench-wan-"));
const requirements = join(ROOT, "tests/bench/wan/requirements.txt");
const peer = new PythonPeer(await pythonWith("wan-bench", requirements), join(ROOT, "tests/bench/wan/reference.py"));
process.chdir("/");
try {
  const [tiny, middle] = [join(ROOT, "tests/parity/wan/model"), join(scratch, "middle-model")];
  await peer.ask("make", { kind: "middle", like: tiny, folder: middle });
  const small = { name: "tiny", folder: tiny, experts: 2, width: 64, height: 48, frames: 9, steps: 6 };
  await compare({ ...small, rounds: 15, target: 1.5 }, scratch, peer);
  const large = { name: "middle", folder: middle, experts: 1, width: 256, height: 256, frames: 17, steps: 3 };
  await compare({ ...large, rounds: 2, target: 1 }, scratch, peer);
  await compareRates(join(scratch, "middle-bundle"), scratch, peer);
} finally {
  peer.close();
  rmSync(scratch, { recursive: true, force: true });
}
process.exit();
