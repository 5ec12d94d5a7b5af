// One block of the real Wan2.2 (width 5120, 40 heads, inner width 13824; random weights) at 1,024 tokens: the same numbers as PyTorch's, and
// both rates side by side, each at its best of one thread and two, against the rate of one of its linear layers in the same run.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openBundle } from "@moevie/bundle";
import { importModel } from "@moevie/importer";
import { readTensors } from "../parity/safetensors-file.ts";
import { largestDifference, scaleOf } from "../parity/sessions.ts";
import { ROOT, median, showTarget } from "./support/processes.ts";
import { PythonPeer, pythonWith } from "./support/python.ts";
import { LinearLayer, WanEngine, secondsOf, type Evaluation } from "./support/wan-engine.ts";

const ROUNDS = 3;
const [WIDTH, INNER, TEXT_WIDTH, TEXT] = [5120, 13824, 4096, 512];
/** Latent frames, rows, columns: 1,024 tokens. */
const SHAPE = [4, 32, 32] as const;
const TOKENS = 1024;
/** Of the answer's scale; f32 sums of 13,824 terms in another order. */
const DIFFERENCE_MAX = 1e-4;
const TARGETS = { torch: 1, gemm: 0.8 } as const;
/** Multiply-adds, twice: both attentions' linear layers, scores and mixing, feed-forward, and the text's two layers. */
const GIGAFLOPS =
  (2 * TOKENS * WIDTH ** 2 * 6 +
    2 * TEXT * WIDTH ** 2 * 2 +
    4 * TOKENS ** 2 * WIDTH +
    4 * TOKENS * TEXT * WIDTH +
    4 * TOKENS * WIDTH * INNER +
    2 * TEXT * (TEXT_WIDTH * WIDTH + WIDTH ** 2)) /
  1e9;
const LAYER = [TOKENS, WIDTH, INNER] as const;
const LAYER_GIGAFLOPS = (2 * LAYER[0] * LAYER[1] * LAYER[2]) / 1e9;

interface Rates {
  readonly ours: number;
  readonly torch: number;
  readonly gemm: number;
  readonly torchGemm: number;
}

/** Gigaflops a second at so many threads, medians of rounds taken in turns. */
async function measure(
  threads: number,
  engine: WanEngine,
  layer: LinearLayer,
  peer: PythonPeer,
  given: Evaluation,
): Promise<Rates> {
  const seconds = { ours: [] as number[], torch: [] as number[], gemm: [] as number[], torchGemm: [] as number[] };
  const forward = { threads, shape: SHAPE, batch: 1 };
  const [rows, inner, columns] = LAYER;
  for (let round = 0; round <= ROUNDS; round++) {
    const turn = {
      ours: await secondsOf(() => engine.evaluate(given)),
      torch: (await peer.ask<{ seconds: number }>("forward", forward)).seconds,
      gemm: await secondsOf(() => layer.run()),
      torchGemm: (await peer.ask<{ seconds: number }>("gemm", { threads, rows, inner, columns })).seconds,
    };
    // The first warms up.
    if (round > 0) for (const [name, value] of Object.entries(turn)) seconds[name as keyof Rates].push(value);
  }
  return {
    ours: GIGAFLOPS / median(seconds.ours),
    torch: GIGAFLOPS / median(seconds.torch),
    gemm: LAYER_GIGAFLOPS / median(seconds.gemm),
    torchGemm: LAYER_GIGAFLOPS / median(seconds.torchGemm),
  };
}

const scratch = mkdtempSync(join(tmpdir(), "moevie-bench-wan-block-"));
const requirements = join(ROOT, "tests/bench/wan/requirements.txt");
const peer = new PythonPeer(await pythonWith("wan-bench", requirements), join(ROOT, "tests/bench/wan/reference.py"));
process.chdir("/");
try {
  const [model, tensors] = [join(scratch, "model"), join(scratch, "forward.safetensors")];
  await peer.ask("make", { kind: "block", like: join(ROOT, "tests/parity/wan/model"), folder: model });
  await importModel(model, join(scratch, "bundle"));
  const bundle = await openBundle(join(scratch, "bundle"));
  await peer.ask("open", { folder: model });
  await peer.ask("forward", { threads: 2, shape: SHAPE, batch: 1, file: tensors });
  const recorded = readTensors(tensors);
  const [latent, context, velocity] = ["latent", "context", "velocity"].map((name) => recorded.get(name)!.data);
  const given = {
    latent: latent!,
    shape: [16, ...SHAPE],
    contexts: [context!],
    tokens: TEXT,
    textWidth: TEXT_WIDTH,
  };
  const rates: Rates[] = [];
  for (const threads of [1, 2]) {
    const engine = await WanEngine.start(bundle, "denoiser", threads);
    const layer = await LinearLayer.start(scratch, threads, LAYER);
    if (threads === 1) {
      const difference = largestDifference(await engine.evaluate(given), velocity!) / scaleOf(velocity!);
      showTarget("largest difference", difference * 1e6, "millionths of the scale", "at most", DIFFERENCE_MAX * 1e6);
      if (difference > DIFFERENCE_MAX) process.exitCode = 1;
    }
    rates.push(await measure(threads, engine, layer, peer, given));
    const { ours, torch, gemm, torchGemm } = rates.at(-1)!;
    console.log(
      `  ${threads} thread${threads > 1 ? "s" : ""}: ${ours.toFixed(1)} GFLOP/s, PyTorch ${torch.toFixed(1)}; its linear layer ${gemm.toFixed(1)}, PyTorch's ${torchGemm.toFixed(1)}`,
    );
    await engine.close();
    await layer.close();
  }
  const best = (name: keyof Rates): number => Math.max(...rates.map((rate) => rate[name]));
  showTarget("rate", best("ours") / best("torch"), "x PyTorch's", "at least", TARGETS.torch);
  const layer = Math.max(best("gemm"), best("torchGemm"));
  showTarget("rate", best("ours") / layer, "x the faster linear layer's", "at least", TARGETS.gemm);
} finally {
  peer.close();
  rmSync(scratch, { recursive: true, force: true });
}
process.exit();
