// Step time of a cluster against what its parts should add up to, each measured by itself in the same run, while nothing else computes:
// trunk graphs, expert graphs, handing each graph to its thread, splitting and summing rows, exchanges between two processes, by a segment as
// the cluster's, with as many rows, and the stream that brings a latent and takes a velocity back.
// Two bounds: all work shared out over the cores without a gap, and one evaluation from its first block to its last. A step cannot be
// faster than the larger one; how much slower it is, is what scheduling, hand-overs between threads and cold caches cost. The processor time
// that all processes used says how much of that is work that costs more in company, the rest is waiting.
import { fork } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { openBundle, type Bundle } from "@moevie/bundle";
import { seededNoise } from "@moevie/diffusion";
import { SEGMENT_FOLDER, WireType, combine, connectExchange, dispatch, serveExchange } from "@moevie/fabric";
import { importStarter } from "@moevie/importer";
import { httpText } from "@moevie/runtime";
import { seeded } from "../parity/tiny.ts";
import { tokenDenoiser } from "../support/token-denoiser.ts";
import { cluster, latentShape, monolithTwoThreads, type ClusterSubject } from "./support/denoisers.ts";
import { cpuMs, evaluationStream, handOver, type Piece } from "./support/pieces.ts";
import { ROOT, cpuSeconds, median, showTarget } from "./support/processes.ts";

const SHARDS = 4;
const ROUNDS = 60;
const WARM_UP = 60;
const CALLS = 300;
const TARGET_RATIO = 1.25;
const BRANCHES = 2;

/** Sums of a router's counters by name; of those with parts, that of `part`. */
async function counters(subject: ClusterSubject): Promise<(name: string, labels?: string) => number> {
  const text = await httpText({ address: subject.routerHttp, setting: "router", path: "/metrics" });
  const lines = text.split("\n");
  return (name, labels = "") =>
    lines
      .filter((line) => (line.startsWith(`${name} `) || line.startsWith(`${name}{`)) && line.includes(labels))
      .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" "))), 0);
}

/** What one evaluation of one branch does, milliseconds and counts. */
interface Evaluation {
  readonly trunkMs: number;
  readonly expertsMs: number;
  readonly exchanges: number;
  readonly bytes: number;
}

/** Evaluations one at a time: no two parts of the cluster compute at once but shards. */
async function alone(subject: ClusterSubject, latent: Float32Array): Promise<Evaluation> {
  for (let at = 0; at < WARM_UP; at++) await subject.evaluate(at % 2, latent, 500);
  const before = await counters(subject);
  for (let at = 0; at < ROUNDS; at++) await subject.evaluate(at % 2, latent, 500);
  const after = await counters(subject);
  const of = (name: string, labels?: string): number => (after(name, labels) - before(name, labels)) / ROUNDS;
  return {
    trunkMs: of("moevie_router_trunk_seconds_total") * 1000,
    expertsMs: of("moevie_exchange_seconds_total", 'part="compute"') * 1000,
    exchanges: of("moevie_exchange_duration_seconds_count"),
    bytes: of("moevie_exchange_bytes_total"),
  };
}

/** A process that answers rows with themselves, and tells its processor time when asked. */
async function receiver(folder: string): Promise<void> {
  process.on("disconnect", () => process.exit(1));
  process.on("message", () => process.send?.(cpuMs()));
  const server = await serveExchange({
    listen: `unix:${join(folder, "exchange.sock")}`,
    holds: { digest: "bench", epoch: 1, slots: [{ layer: 0, expert: 0, slot: 0 }] },
    segmentFolder: SEGMENT_FOLDER,
    handlers: {
      rows: ({ rows, out }) => {
        const partial = Float32Array.from(rows);
        out?.set(partial);
        return Promise.resolve({ partial: out ?? partial, queueUs: 0, computeUs: 0 });
      },
    },
  });
  process.send?.(server.address);
}

/** Exchanges of `rows` rows, one at a time. */
async function exchanges(rows: number, width: number): Promise<Piece> {
  const folder = mkdtempSync(join(tmpdir(), "moevie-bench-"));
  const child = fork(fileURLToPath(import.meta.url), ["receiver", folder], { execArgv: [] });
  const told = (): Promise<unknown> => new Promise((resolve) => child.once("message", resolve));
  try {
    const client = connectExchange((await told()) as string, { segmentFolder: SEGMENT_FOLDER });
    while (client.path !== "segment") await new Promise(setImmediate);
    const index = Uint32Array.from({ length: rows }, (_, at) => at);
    const weights = new Float32Array(rows).fill(1);
    const csr = { experts: Uint16Array.of(0), offsets: Uint32Array.of(0, rows), rowIndex: index, weights };
    const call = { layer: 0, epoch: 1, attempt: 0, branch: 0, wire: WireType.f32, timeoutMs: 30_000 };
    const source = new Float32Array(rows * width).fill(1);
    const both = async (): Promise<number> => {
      const answer = told();
      child.send("processor time");
      return cpuMs() + Number(await answer);
    };
    const times: number[] = [];
    let begunMs = 0;
    for (let at = 0; at < 2 * CALLS; at++) {
      if (at === CALLS) begunMs = await both();
      const startMs = performance.now();
      (await client.exchange({ ...call, source, rows: index, d: width, csr })).release();
      if (at >= CALLS) times.push(performance.now() - startMs);
    }
    const usedMs = (await both()) - begunMs;
    client.close();
    return { wallMs: median(times), cpuMs: usedMs / CALLS };
  } finally {
    child.kill("SIGKILL");
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Milliseconds in which a layer's rows are split over shards and their answers summed. */
function splitAndSum(bundle: Bundle, tokens: number): number {
  const { hidden, experts, topK } = tokenDenoiser(bundle);
  const random = seeded(3);
  const ids = Int32Array.from({ length: tokens * topK }, () => Math.floor(((random() + 1) / 2) * experts));
  const choice = { ids, weights: new Float32Array(ids.length).fill(1 / topK), k: topK };
  const shardOf = ids.map((expert) => expert % SHARDS);
  const out = new Float32Array(tokens * hidden);
  const times: number[] = [];
  for (let at = 0; at < CALLS; at++) {
    const startMs = performance.now();
    const works = dispatch(choice, { shardOf, experts, shards: SHARDS });
    const splitMs = performance.now() - startMs;
    const parts = works.map(({ rows }) => ({ rows, partial: new Float32Array(rows.length * hidden) }));
    const sumMs = performance.now();
    combine(parts, hidden, out);
    times.push(splitMs + performance.now() - sumMs);
  }
  return median(times);
}

async function medianMs(run: () => Promise<unknown>, count: number): Promise<number> {
  const times: number[] = [];
  for (let at = 0; at < count; at++) {
    const startMs = performance.now();
    await run();
    times.push(performance.now() - startMs);
  }
  return median(times);
}

async function measure(folder: string): Promise<object> {
  process.chdir("/");
  const bundle = await openBundle(folder);
  const denoiser = tokenDenoiser(bundle);
  const { maxTokens, width } = bundle.manifest.text;
  const shape = latentShape(bundle);
  const tokens = shape.slice(1).reduce((product, size) => product * size, 1) / 4;
  const contexts = [3, 4].map((seed) => seededNoise(seed, [1, 1, maxTokens, width]));
  const latent = seededNoise(7, shape);
  const monolith = await monolithTwoThreads(bundle, contexts);
  const one = await cluster(bundle, folder, 1, contexts);
  const many = await cluster(bundle, folder, SHARDS, contexts);
  try {
    const parts = await alone(one, latent);
    const sent = await alone(many, latent);
    const rows = Math.round(sent.bytes / sent.exchanges / 2 / (denoiser.hidden * 4));
    const [empty, exchange] = [await exchanges(0, denoiser.hidden), await exchanges(rows, denoiser.hidden)];
    const [handing, stream] = [await handOver(bundle, CALLS), await evaluationStream(bundle, CALLS)];
    const layerMs = splitAndSum(bundle, tokens);
    const both =
      (subject: { run: typeof many.run }): (() => Promise<unknown>) =>
      () =>
        subject.run(latent, 500);
    await medianMs(both(many), WARM_UP);
    await medianMs(both(monolith), WARM_UP);
    const used = (): number => many.pids.reduce((sum, pid) => sum + cpuSeconds(pid) * 1000, cpuMs());
    const [steps, single]: [number[], number[]] = [[], []];
    let usedMs = 0;
    for (let round = 0; round < ROUNDS / 10; round++) {
      const before = used();
      steps.push(await medianMs(both(many), 10));
      usedMs += (used() - before) / ROUNDS;
      single.push(await medianMs(both(monolith), 10));
    }
    const measured = { stepMs: median(steps), usedMs, monolithMs: median(single) };
    return report({
      parts,
      sent,
      rows,
      empty,
      exchange,
      handing,
      stream,
      layerMs,
      layers: denoiser.layers,
      ...measured,
    });
  } finally {
    for (const subject of [monolith, one, many]) await subject.close();
  }
}

interface Terms {
  /** With one shard: graphs run by themselves. */
  readonly parts: Evaluation;
  /** With all shards: what crosses. */
  readonly sent: Evaluation;
  readonly rows: number;
  readonly empty: Piece;
  readonly exchange: Piece;
  readonly handing: Piece;
  readonly stream: Piece;
  readonly layerMs: number;
  readonly layers: number;
  readonly stepMs: number;
  /** Processor time of a step, in every process. */
  readonly usedMs: number;
  readonly monolithMs: number;
}

function line(name: string, ms: number): void {
  console.log(`  ${name.padEnd(66)} ${ms.toFixed(2).padStart(7)} ms`);
}

function report(terms: Terms): object {
  const { parts, sent, rows, empty, exchange, handing, stream, layerMs, layers } = terms;
  const { stepMs, usedMs, monolithMs } = terms;
  const cores = availableParallelism();
  const splitMs = layers * layerMs;
  const moved = sent.exchanges * exchange.cpuMs;
  // The trunk's graphs are its blocks, the entry and the head; a shard runs one for each exchange.
  const graphs = layers + 2;
  const handedMs = (graphs + sent.exchanges) * handing.cpuMs;
  const workMs = (BRANCHES * (parts.trunkMs + parts.expertsMs + handedMs + splitMs + moved + stream.cpuMs)) / cores;
  const pathMs =
    stream.wallMs +
    parts.trunkMs +
    splitMs +
    (graphs + layers) * handing.wallMs +
    layers * exchange.wallMs +
    parts.expertsMs / Math.min(cores, SHARDS);
  const modelMs = Math.max(workMs, pathMs);
  console.log(`\nstarter model, ${SHARDS} shards, ${layers} layers, ${cores} cores; of one evaluation of one branch:`);
  line("trunk graphs", parts.trunkMs);
  line("expert graphs, all in one shard", parts.expertsMs);
  line("rows split over shards and answers summed", splitMs);
  line(`processor time of ${(graphs + sent.exchanges).toFixed(0)} graphs handed to their threads`, handedMs);
  line("one such hand-over", handing.wallMs);
  line(`processor time of ${sent.exchanges.toFixed(0)} exchanges of ${rows} rows, both ends`, moved);
  line("one such exchange there and back", exchange.wallMs);
  line("one without rows", empty.wallMs);
  line("processor time of its latent sent and its velocity received, both ends", stream.cpuMs);
  line("there and back", stream.wallMs);
  console.log("a step of two branches:");
  line(`work over ${cores} cores`, workMs);
  line("one evaluation from its first block to its last", pathMs);
  line("model: the larger one", modelMs);
  line(`processor time of all processes while it was measured, over ${cores} cores`, usedMs / cores);
  line("measured", stepMs);
  line("one process, a thread a branch", monolithMs);
  showTarget("step to model", stepMs / modelMs, "x", "at most", TARGET_RATIO);
  const figures = { ...terms, splitMs, workMs, pathMs, modelMs };
  return { ...figures, ratio: stepMs / modelMs, target: TARGET_RATIO, met: stepMs / modelMs <= TARGET_RATIO };
}

const [role, folder] = process.argv.slice(2);
if (role === "receiver" && folder !== undefined) await receiver(folder);
else {
  const scratch = mkdtempSync(join(tmpdir(), "moevie-bench-overhead-"));
  try {
    const bundle = join(scratch, "starter");
    await importStarter(join(ROOT, "packages/starter-model/weights"), bundle);
    console.log(JSON.stringify(await measure(bundle)));
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
  process.exit(0);
}
