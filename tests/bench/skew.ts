// What a plan is worth when some experts are asked for far more than others: steps of one layer of 64 experts, top 2, over shard processes that
// take a fixed time for every (row, expert) entry, with experts spread evenly and as planned into 72 slots, in turns in one run. Rows cross by
// the exchange and copies are chosen as the router chooses them; loads are counted on other rows than those that are measured.
import { fork, type ChildProcess } from "node:child_process";
import { fileURLToPath } from "node:url";
import { WireType, combine, connectExchange, dispatch, serveExchange } from "@moevie/fabric";
import type { ExchangeClient, GateChoice } from "@moevie/fabric";
import { balancedness, chooseReplicas, planPlacement, type LayerShards } from "@moevie/placement";
import { seeded } from "../parity/tiny.ts";
import { median, showTarget } from "./support/processes.ts";

const [EXPERTS, SLOTS, TOP, WIDTH] = [64, 72, 2, 64];
const ROWS = 4096;
const ROUNDS = 9;
const COST_US = 40;
/** Rows whose choices are counted for the plan. */
const COUNTED_ROWS = 16 * ROWS;
const TARGET_BALANCEDNESS = 0.9;

/** A shard: an entry costs it COST_US, one request after the other; its answers are the rows. */
async function shard(): Promise<void> {
  process.on("disconnect", () => process.exit(1));
  let before = Promise.resolve();
  const slots = Array.from({ length: EXPERTS }, (_, expert) => ({ layer: 0, expert, slot: expert }));
  const server = await serveExchange({
    listen: "127.0.0.1:0",
    holds: { digest: "bench", epoch: 1, slots },
    handlers: {
      rows: async ({ rows, csr }) => {
        const partial = Float32Array.from(rows);
        const ms = (csr.rowIndex.length * COST_US) / 1000;
        before = before.then(() => new Promise((resolve) => setTimeout(resolve, ms)));
        await before;
        return { partial, queueUs: 0, computeUs: ms * 1000 };
      },
    },
  });
  process.send?.(server.address);
}

/** Two different experts a row, each drawn by its weight. */
function drawChoice(weights: readonly number[], rows: number, draw: () => number): GateChoice {
  const sums: number[] = [];
  for (const weight of weights) sums.push((sums.at(-1) ?? 0) + weight);
  const total = sums.at(-1) ?? 0;
  const pick = (): number => {
    const at = draw() * total;
    return sums.findIndex((sum) => at < sum);
  };
  const ids = new Int32Array(rows * TOP);
  for (let row = 0; row < rows; row++) {
    const first = pick();
    let second = pick();
    while (second === first) second = pick();
    ids.set([first, second], row * TOP);
  }
  return { ids, weights: new Float32Array(ids.length).fill(1 / TOP), k: TOP };
}

function counted({ ids }: GateChoice): Float64Array {
  const loads = new Float64Array(EXPERTS);
  for (const expert of ids) loads[expert] = (loads[expert] ?? 0) + 1;
  return loads;
}

interface Step {
  readonly ms: number;
  /** Entries by shard. */
  readonly entries: Float64Array;
}

async function step(
  clients: readonly ExchangeClient[],
  layer: LayerShards,
  choice: GateChoice,
  source: Float32Array,
): Promise<Step> {
  const startMs = performance.now();
  const holders = Array.from({ length: EXPERTS }, (_, expert) =>
    layer.flatMap((held, index) => (held.includes(expert) ? [index] : [])),
  );
  const sameHost = clients.map(() => false);
  const shardOf = chooseReplicas({ ids: choice.ids, k: TOP, holders, sameHost, credits: clients.map(() => ROWS) });
  const works = dispatch(choice, { shardOf, experts: EXPERTS, shards: clients.length });
  const fixed = { layer: 0, epoch: 1, attempt: 0, branch: 0, wire: WireType.f32, timeoutMs: 30_000 };
  const answers = await Promise.all(
    works.map(async ({ shard: index, rows, csr }) => {
      const client = clients[index] as ExchangeClient;
      return { rows, answer: await client.exchange({ ...fixed, source, rows, d: WIDTH, csr }) };
    }),
  );
  const parts = answers.map(({ rows, answer }) => ({ rows, partial: answer.partial }));
  combine(parts, WIDTH, new Float32Array(ROWS * WIDTH));
  for (const { answer } of answers) answer.release();
  const entries = new Float64Array(clients.length);
  for (const { shard: index, csr } of works) entries[index] = csr.rowIndex.length;
  return { ms: performance.now() - startMs, entries };
}

interface Row {
  readonly before: number;
  readonly after: number;
  readonly bound: number;
  readonly predicted: number;
  readonly measured: number;
}

/** One line: balancedness by entries that were sent, step times, and what the plan promised. */
async function compare(
  name: string,
  clients: readonly ExchangeClient[],
  weights: readonly number[],
  draw: () => number,
): Promise<Row> {
  const shards = clients.length;
  const loads = counted(drawChoice(weights, COUNTED_ROWS, draw));
  const plan = planPlacement([loads], { slots: SLOTS, shards, groups: 1, nodes: 1 });
  const planned = plan.layers[0]?.shards ?? [];
  const each = EXPERTS / shards;
  const even = Array.from({ length: shards }, (_, index) => Array.from({ length: each }, (_, i) => index * each + i));
  const source = Float32Array.from({ length: ROWS * WIDTH }, (_, at) => Math.sin(at));
  const [asItWas, asPlanned]: [Step[], Step[]] = [[], []];
  for (let round = 0; round <= ROUNDS; round++) {
    const choice = drawChoice(weights, ROWS, draw);
    const pair = [await step(clients, even, choice, source), await step(clients, planned, choice, source)] as const;
    // The first warms up.
    if (round === 0) continue;
    asItWas.push(pair[0]);
    asPlanned.push(pair[1]);
  }
  const balance = (steps: readonly Step[]): number => median(steps.map(({ entries }) => balancedness([entries])));
  const promised = (layer: LayerShards): number => {
    const copies = counted({ ids: Int32Array.from(layer.flat()), weights: new Float32Array(), k: 1 });
    return Math.max(...layer.map((held) => held.reduce((sum, e) => sum + (loads[e] ?? 0) / (copies[e] ?? 1), 0)));
  };
  const [beforeMs, afterMs] = [asItWas, asPlanned].map((steps) => median(steps.map(({ ms }) => ms))) as [
    number,
    number,
  ];
  const { bound, equal } = plan.balancedness;
  const row = {
    before: balance(asItWas),
    after: balance(asPlanned),
    bound,
    predicted: promised(even) / promised(planned),
    measured: beforeMs / afterMs,
  };
  const cells = [
    row.before.toFixed(3),
    bound.toFixed(3),
    equal.toFixed(3),
    row.after.toFixed(3),
    beforeMs.toFixed(1),
    afterMs.toFixed(1),
    row.predicted.toFixed(2),
    row.measured.toFixed(2),
  ];
  console.log(`  ${name.padEnd(20)}${cells.map((cell) => cell.padStart(10)).join("")}`);
  return row;
}

function zipf(): number[] {
  return Array.from({ length: EXPERTS }, (_, rank) => 1 / (rank + 1));
}

/** Nine tenths of all choices go to `size` experts. */
function hot(size: number): number[] {
  return Array.from({ length: EXPERTS }, (_, expert) => (expert < size ? 0.9 / size : 0.1 / (EXPERTS - size)));
}

function shuffled(values: readonly number[], draw: () => number): number[] {
  return values
    .map((value) => ({ value, at: draw() }))
    .sort((a, b) => a.at - b.at)
    .map(({ value }) => value);
}

async function main(): Promise<void> {
  const children: ChildProcess[] = [];
  const random = seeded(17);
  const draw = (): number => (random() + 1) / 2;
  try {
    const start = async (): Promise<ExchangeClient> => {
      const child = fork(fileURLToPath(import.meta.url), ["shard"], { execArgv: [] });
      children.push(child);
      const address = await new Promise<string>((resolve) =>
        child.once("message", (message) => resolve(message as string)),
      );
      const client = connectExchange(address);
      while (client.holds() === undefined) await new Promise(setImmediate);
      return client;
    };
    const clients: ExchangeClient[] = [];
    for (let index = 0; index < 8; index++) clients.push(await start());
    const heads = ["before", "bound", "planned", "measured", "before ms", "after ms", "gain", "measured"];
    console.log(
      `\n${EXPERTS} experts, top ${TOP}, ${SLOTS} slots, ${ROWS} rows a step, ${COST_US} us an entry; medians of ${ROUNDS}`,
    );
    console.log(`  ${"balancedness, steps".padEnd(20)}${heads.map((head) => head.padStart(10)).join("")}`);
    const rows: Row[] = [];
    for (const [shards, size] of [
      [4, 0],
      [4, 2],
      [4, 4],
      [4, 8],
      [8, 0],
      [8, 8],
    ] as const) {
      const weights = shuffled(size === 0 ? zipf() : hot(size), draw);
      const name = `${shards} shards, ${size === 0 ? "Zipf" : `${size} hot`}`;
      rows.push(await compare(name, clients.slice(0, shards), weights, draw));
    }
    for (const client of clients) client.close();
    report(rows);
  } finally {
    for (const child of children) child.kill("SIGKILL");
  }
}

function report(rows: readonly Row[]): void {
  // Equal shares without two copies on a shard: where the bound itself is below the target, the bound is what can be had.
  const least = Math.min(...rows.map(({ after, bound }) => after / Math.min(1, bound / TARGET_BALANCEDNESS)));
  showTarget("least balancedness measured, where the bound allows it", least, "", "at least", TARGET_BALANCEDNESS);
  console.log(JSON.stringify({ rows, target: TARGET_BALANCEDNESS, met: least >= TARGET_BALANCEDNESS }));
}

if (process.argv[2] === "shard") await shard();
else await main();
