// One layer of experts (64 of width 1024, inner width 4096, top 2) on 4,096 rows: four shard processes with one thread each, rows out and
// sums back by the exchange, beside PyTorch's grouped version of the same layer in one process at its best of one thread and two. Same
// rows, same choice, in turns in one run. The gate is in neither: it is a three-hundredth of the arithmetic.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  SEGMENT_FOLDER,
  WireType,
  combine,
  connectExchange,
  dispatch,
  type ExchangeClient,
  type GateChoice,
} from "@moevie/fabric";
import { importStarter } from "@moevie/importer";
import { readTensors, writeTensors } from "../parity/safetensors-file.ts";
import { largestDifference, scaleOf } from "../parity/sessions.ts";
import { seeded, writeTinyModel } from "../parity/tiny.ts";
import { ProcessGroup, ROOT, median, showTarget } from "./support/processes.ts";
import { PythonPeer, pythonWith } from "./support/python.ts";

const [EXPERTS, WIDTH, INNER, ROWS, TOP] = [64, 1024, 4096, 4096, 2];
const SHARDS = 4;
const ROUNDS = 5;
/** Of the answer's scale; f32 sums of 4,096 terms in another order. */
const DIFFERENCE_MAX = 1e-4;
const TARGET_RATIO = 1;
/** Multiply-adds, twice. */
const GIGAFLOPS = (ROWS * TOP * 4 * WIDTH * INNER) / 1e9;
const GEMM_ROWS = (ROWS * TOP) / EXPERTS;
const GEMM_GIGAFLOPS = (2 * GEMM_ROWS * WIDTH * INNER) / 1e9;

interface Given {
  readonly rows: Float32Array;
  readonly choice: GateChoice;
}

/** Rows and two different experts for each, all experts alike, with weights that sum to one. */
function drawLayer(): Given {
  const random = seeded(23);
  const rows = Float32Array.from({ length: ROWS * WIDTH }, random);
  const [ids, weights] = [new Int32Array(ROWS * TOP), new Float32Array(ROWS * TOP)];
  for (let row = 0; row < ROWS; row++) {
    const first = Math.floor(((random() + 1) / 2) * EXPERTS);
    const share = 0.5 + (random() + 1) / 4;
    ids.set([first, (first + 1 + Math.floor(((random() + 1) / 2) * (EXPERTS - 1))) % EXPERTS], row * TOP);
    weights.set([share, 1 - share], row * TOP);
  }
  return { rows, choice: { ids, weights, k: TOP } };
}

interface Cluster {
  /** The layer's sums [rows, width] into `out`; milliseconds that shards computed, the busiest one's. */
  readonly run: (given: Given, out: Float32Array) => Promise<number>;
  readonly close: () => Promise<void>;
}

async function startShards(bundle: string): Promise<Cluster> {
  const group = new ProcessGroup();
  const names = Array.from({ length: SHARDS }, (_, index) => `shard-${index}`);
  // One after the other: each widens its weights while it loads.
  for (const [index, name] of names.entries())
    await group.start("expert-shard", name, {
      MOEVIE_BUNDLE: bundle,
      MOEVIE_SHARD_INDEX: `${index}`,
      MOEVIE_SHARD_COUNT: `${SHARDS}`,
      MOEVIE_INTRA_OP_THREADS: "1",
    });
  const clients = names.map((name) => connectExchange(group.address(name), { segmentFolder: SEGMENT_FOLDER }));
  while (clients.some((client) => client.path !== "segment")) await new Promise((resolve) => setTimeout(resolve, 5));
  const home = new Int32Array(EXPERTS).fill(-1);
  clients.forEach((client, shard) => client.holds()?.slots.forEach(({ expert }) => (home[expert] = shard)));
  return {
    run: (given, out) => runLayer(clients, home, given, out),
    close: async () => {
      for (const client of clients) client.close();
      await group.close();
    },
  };
}

async function runLayer(
  clients: readonly ExchangeClient[],
  home: Int32Array,
  { rows, choice }: Given,
  out: Float32Array,
): Promise<number> {
  const shardOf = choice.ids.map((expert) => home[expert] ?? -1);
  const works = dispatch(choice, { shardOf, experts: EXPERTS, shards: SHARDS });
  const answers = await Promise.all(
    works.map(async (work) => {
      const client = clients[work.shard] as ExchangeClient;
      const fixed = { layer: 0, epoch: client.holds()?.epoch ?? 0, attempt: 0, branch: 0, wire: WireType.f32 };
      const answer = await client.exchange({
        ...fixed,
        timeoutMs: 60_000,
        source: rows,
        rows: work.rows,
        d: WIDTH,
        csr: work.csr,
      });
      return { rows: work.rows, partial: answer.partial, answer };
    }),
  );
  combine(answers, WIDTH, out);
  const computeMs = Math.max(...answers.map(({ answer }) => answer.computeUs / 1000));
  for (const { answer } of answers) answer.release();
  return computeMs;
}

interface Figures {
  readonly ours: number[];
  readonly compute: number[];
  readonly torch: { readonly 1: number[]; readonly 2: number[] };
  readonly gemm: number[];
}

async function measure(cluster: Cluster, given: Given, peer: PythonPeer): Promise<Figures> {
  const figures: Figures = { ours: [], compute: [], torch: { 1: [], 2: [] }, gemm: [] };
  const out = new Float32Array(ROWS * WIDTH);
  for (let round = 0; round <= ROUNDS; round++) {
    const startMs = performance.now();
    const computeMs = await cluster.run(given, out);
    const ours = (performance.now() - startMs) / 1000;
    const one = await peer.ask<{ seconds: number }>("run", { threads: 1 });
    const two = await peer.ask<{ seconds: number }>("run", { threads: 2 });
    const gemm = await peer.ask<{ seconds: number }>("gemm", { threads: 2, rows: GEMM_ROWS });
    // The first warms up.
    if (round === 0) continue;
    figures.ours.push(ours);
    figures.compute.push(computeMs / 1000);
    figures.torch[1].push(one.seconds);
    figures.torch[2].push(two.seconds);
    figures.gemm.push(gemm.seconds);
  }
  return figures;
}

function report({ ours, compute, torch, gemm }: Figures): object {
  console.log(`\n${EXPERTS} experts, top ${TOP}, d ${WIDTH}, inner ${INNER}, ${ROWS} rows; medians of ${ROUNDS}`);
  const lines = {
    [`${SHARDS} shards`]: median(ours),
    "  of it the busiest shard computes": median(compute),
    "PyTorch, 1 thread": median(torch[1]),
    "PyTorch, 2 threads": median(torch[2]),
  };
  for (const [name, seconds] of Object.entries(lines))
    console.log(
      `  ${name.padEnd(34)} ${(seconds * 1000).toFixed(0).padStart(7)} ms ${(GIGAFLOPS / seconds).toFixed(1).padStart(7)} GFLOP/s`,
    );
  const rate = GEMM_GIGAFLOPS / median(gemm);
  console.log(`  one linear layer on ${GEMM_ROWS} rows, PyTorch, 2 threads: ${rate.toFixed(1)} GFLOP/s`);
  const ratio = Math.min(median(torch[1]), median(torch[2])) / median(ours);
  showTarget("rows a second", ratio, "x PyTorch's", "at least", TARGET_RATIO);
  return { seconds: lines, gemmGigaflops: rate, ratio, target: TARGET_RATIO, met: ratio >= TARGET_RATIO };
}

const scratch = mkdtempSync(join(tmpdir(), "moevie-bench-moe-layer-"));
const python = await pythonWith("wan-bench", join(ROOT, "tests/bench/wan/requirements.txt"));
const peer = new PythonPeer(python, join(ROOT, "tests/bench/moe-layer/reference.py"));
process.chdir("/");
let cluster: Cluster | undefined;
try {
  const [model, bundle] = [join(scratch, "model"), join(scratch, "bundle")];
  console.log("making experts of random weights");
  writeTinyModel(model, { width: WIDTH, heads: 8, layers: 1, experts: EXPERTS, expertHidden: INNER, topK: TOP });
  await importStarter(model, bundle);
  const given = drawLayer();
  const [layer, answer] = [join(scratch, "layer.safetensors"), join(scratch, "answer.safetensors")];
  const { ids, weights } = given.choice;
  writeTensors(
    layer,
    new Map([
      ["rows", { shape: [ROWS, WIDTH], data: given.rows }],
      ["weights", { shape: [ROWS, TOP], data: weights }],
      ["ids", { shape: [ROWS, TOP], data: Float32Array.from(ids) }],
    ]),
    "f32",
  );
  cluster = await startShards(bundle);
  await peer.ask("open", { file: join(model, "transformer", "model.safetensors"), layer });
  await peer.ask("run", { threads: 2, file: answer });
  const out = new Float32Array(ROWS * WIDTH);
  await cluster.run(given, out);
  const expected = readTensors(answer).get("out")?.data ?? new Float32Array();
  const difference = largestDifference(out, expected) / scaleOf(expected);
  console.log(`largest difference from PyTorch's answer: ${difference.toExponential(1)} of its scale`);
  if (!(difference <= DIFFERENCE_MAX)) throw new Error(`the answers differ by ${difference} of their scale`);
  console.log(JSON.stringify({ difference, ...report(await measure(cluster, given, peer)) }));
} finally {
  peer.close();
  await cluster?.close();
  rmSync(scratch, { recursive: true, force: true });
}
process.exit(0);
