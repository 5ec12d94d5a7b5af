// Plans beside the published algorithm: balance under skewed loads, what moves when loads drift, the time it takes; and the choice of
// copies row by row. Pure arithmetic on seeded loads: the same figures on every machine, times apart.
import {
  balancedness,
  chooseReplicas,
  placementOf,
  planPlacement,
  type LayerShards,
  type PlanShape,
} from "@moevie/placement";
import { rebalanceExperts } from "@moevie/placement/published";
import { seeded } from "../parity/tiny.ts";
import { median, showTarget } from "./support/processes.ts";

const EXPERTS = 64;
const SLOTS = 72;
const LARGE: PlanShape = { slots: 288, shards: 32, groups: 1, nodes: 1 };
const LARGE_LAYERS = 64;
const LARGE_EXPERTS = 256;
const ROUNDS = 5;
const ROWS = 4096;
const TARGETS = { balancedness: 0.9, movedPart: 0.5, planMs: 1000, chooseMs: 10 };

/** Uniform numbers in [0, 1). */
function drawn(seed: number): () => number {
  const next = seeded(seed);
  return () => (next() + 1) / 2;
}

function shuffled(values: readonly number[], draw: () => number): number[] {
  return values
    .map((value) => ({ value, at: draw() }))
    .sort((a, b) => a.at - b.at)
    .map(({ value }) => value);
}

function loadsByShard(shards: LayerShards, loads: ArrayLike<number>): Float64Array {
  const copies = new Map<number, number>();
  for (const expert of shards.flat()) copies.set(expert, (copies.get(expert) ?? 0) + 1);
  return Float64Array.from(shards, (held) =>
    held.reduce((sum, expert) => sum + (loads[expert] ?? 0) / (copies.get(expert) ?? 1), 0),
  );
}

function byShard(slots: readonly number[], shards: number): number[][] {
  const size = slots.length / shards;
  return Array.from({ length: shards }, (_, shard) => slots.slice(shard * size, (shard + 1) * size));
}

/** Planned, published (with the copies it puts beside another of the same expert), and what bounds both. */
function skew(name: string, loads: readonly number[], shards: number): number {
  const global = { slots: SLOTS, shards, groups: 1, nodes: 1 };
  const nodes = { slots: SLOTS, shards, groups: 8, nodes: 2 };
  const spread = Array.from({ length: shards }, (_, shard) =>
    Array.from({ length: EXPERTS / shards }, (_, i) => shard + i * shards),
  );
  const figures = [global, nodes].flatMap((shape) => {
    const plan = planPlacement([Float64Array.from(loads)], shape);
    const published = byShard(rebalanceExperts(loads, SLOTS, shape.groups, shape.nodes, shards), shards);
    const twice = published.reduce((sum, held) => sum + held.length - new Set(held).size, 0);
    const balance = balancedness([loadsByShard(published, loads)]).toFixed(3);
    return [plan.balancedness.equal.toFixed(3), plan.balancedness.credits.toFixed(3), `${balance} (${twice})`];
  });
  const { bound, equal } = planPlacement([Float64Array.from(loads)], global).balancedness;
  const before = balancedness([loadsByShard(spread, loads)]).toFixed(3);
  const cells = [before, bound.toFixed(3), ...figures].map((cell) => cell.padEnd(12));
  console.log(`  ${name.padEnd(22)} ${cells.join("")}`);
  return equal;
}

function skews(): number {
  console.log(
    `balancedness, ${EXPERTS} experts, ${SLOTS} slots; published: (copies beside another of the same expert)`,
  );
  const heads = ["spread", "bound", "global", "by credits", "published", "2 nodes", "by credits", "published"];
  console.log(`  ${"".padEnd(22)} ${heads.map((head) => head.padEnd(12)).join("")}`);
  const draw = drawn(5);
  const zipf = Array.from({ length: EXPERTS }, (_, rank) => 1000 / (rank + 1));
  const hot = (size: number): number[] =>
    Array.from({ length: EXPERTS }, (_, expert) => (expert < size ? 900 / size : 100 / (EXPERTS - size)));
  const all = [4, 8].flatMap((shards) => [
    skew(`${shards} shards, Zipf`, shuffled(zipf, draw), shards),
    ...[2, 4, 8].map((size) => skew(`${shards} shards, ${size} hot`, shuffled(hot(size), draw), shards)),
  ]);
  return Math.min(...all);
}

/** One layer of loads as different as those of trained models: the largest is about fifty times the mean. */
function largeLoads(draw: () => number): Float64Array {
  return Float64Array.from({ length: LARGE_EXPERTS }, () => (1000 * (draw() + 0.001) ** 2) / (0.02 + draw()));
}

/** What drifting loads move, with and without the placement so far; answers the part that keeping leaves of the moves. */
function drift(
  name: string,
  shape: PlanShape,
  change: (loads: Float64Array, draw: () => number) => Float64Array,
): number {
  const draw = drawn(7);
  const old = Array.from({ length: LARGE_LAYERS }, () => largeLoads(draw));
  const loads = old.map((layer) => change(layer, draw));
  const before = planPlacement(old, shape);
  const fresh = planPlacement(loads, shape);
  const kept = planPlacement(loads, shape, placementOf(before, 1));
  const slots = LARGE_LAYERS * shape.slots;
  const isNew = (layer: number, shard: number, expert: number): boolean =>
    before.layers[layer]?.shards[shard]?.includes(expert) !== true;
  const freshMoves = fresh.layers.reduce(
    (sum, { shards }, layer) =>
      sum + shards.reduce((all, held, shard) => all + held.filter((expert) => isNew(layer, shard, expert)).length, 0),
    0,
  );
  const keptMoves = kept.layers.reduce((sum, { moves }) => sum + moves.length, 0);
  const cells = [
    kept.balancedness.before ?? 0,
    fresh.balancedness.equal,
    kept.balancedness.equal,
    freshMoves / slots,
    keptMoves / slots,
  ].map((figure) => figure.toFixed(3).padEnd(12));
  console.log(`  ${name.padEnd(22)} ${cells.join("")}`);
  return keptMoves / freshMoves;
}

/** Each load changes by up to `part` of itself. */
function by(part: number): (loads: Float64Array, draw: () => number) => Float64Array {
  return (loads, draw) => loads.map((load) => load * (1 - part + 2 * part * draw()));
}

function drifts(): number {
  const sizes = `${LARGE_LAYERS} layers of ${LARGE_EXPERTS} experts, ${LARGE.slots} slots, ${LARGE.shards} shards`;
  console.log(`\n${sizes}: balancedness, and part of the slots that get another expert`);
  const heads = ["old plan", "fresh", "kept", "fresh moves", "kept moves"];
  console.log(`  ${"".padEnd(22)} ${heads.map((head) => head.padEnd(12)).join("")}`);
  const nodes = { ...LARGE, groups: 8, nodes: 4 };
  const parts = [
    drift("drift 5 %", LARGE, by(0.05)),
    drift("drift 20 %", LARGE, by(0.2)),
    drift("other loads", LARGE, (_, draw) => largeLoads(draw)),
    drift("drift 5 %, 4 nodes", nodes, by(0.05)),
    drift("drift 20 %, 4 nodes", nodes, by(0.2)),
    drift("other loads, 4 nodes", nodes, (_, draw) => largeLoads(draw)),
  ];
  return Math.max(...parts.slice(0, 2));
}

function timed(run: () => void): number {
  return median(
    Array.from({ length: ROUNDS }, () => {
      const startMs = performance.now();
      run();
      return performance.now() - startMs;
    }),
  );
}

function planTimes(): number {
  const draw = drawn(9);
  const old = Array.from({ length: LARGE_LAYERS }, () => largeLoads(draw));
  const before = placementOf(planPlacement(old, LARGE), 1);
  const loads = old.map((layer) => layer.map((load) => load * (0.8 + 0.4 * draw())));
  const fresh = timed(() => void planPlacement(loads, LARGE));
  const kept = timed(() => void planPlacement(loads, LARGE, before));
  console.log(
    `\na plan of that size, median of ${ROUNDS}: ${fresh.toFixed(0)} ms; keeping what lies: ${kept.toFixed(0)} ms`,
  );
  return kept;
}

/** A gate of Zipf's law on 64 experts, top 2, and the plan for its loads on 8 shards: chosen copies against copies in turn. */
function choices(): number {
  const draw = drawn(11);
  const ids = Int32Array.from({ length: ROWS * 2 }, () => Math.floor(EXPERTS ** draw()) - 1);
  for (let row = 0; row < ROWS; row++)
    if (ids[2 * row] === ids[2 * row + 1]) ids[2 * row + 1] = (ids[2 * row] ?? 0) === 0 ? 1 : 0;
  const loads = new Float64Array(EXPERTS);
  for (const expert of ids) loads[expert] = (loads[expert] ?? 0) + 1;
  const [layer] = planPlacement([loads], { slots: SLOTS, shards: 8, groups: 1, nodes: 1 }).layers;
  const holders = Array.from(loads, (_, expert) =>
    (layer?.shards ?? []).flatMap((held, shard) => (held.includes(expert) ? [shard] : [])),
  );
  const none = Array.from({ length: 8 }, () => false);
  const choice = { ids, k: 2, holders, sameHost: none, credits: none.map(() => ROWS / 2) };
  const chosen = chooseReplicas(choice);
  const seen = new Int32Array(EXPERTS);
  const inTurn = ids.map((expert) => {
    const copies = holders[expert] ?? [];
    return copies[(seen[expert] = (seen[expert] ?? 0) + 1) % copies.length] ?? -1;
  });
  console.log(
    `\n${ROWS} rows, top 2 of ${EXPERTS} experts, ${SLOTS} slots on 8 shards: rows sent a row, largest over mean entries a shard`,
  );
  for (const [name, shards] of [
    ["chosen", chosen],
    ["copies in turn", inTurn],
  ] as const) {
    const entries = new Float64Array(8);
    let sent = 0;
    shards.forEach((shard, at) => {
      entries[shard] = (entries[shard] ?? 0) + 1;
      if (at % 2 === 0 || shards[at - 1] !== shard) sent++;
    });
    console.log(
      `  ${name.padEnd(22)} ${(sent / ROWS).toFixed(3).padEnd(12)}${(Math.max(...entries) / (ROWS / 4)).toFixed(3)}`,
    );
  }
  return timed(() => void chooseReplicas(choice));
}

const least = skews();
const movedPart = drifts();
const planMs = planTimes();
const chooseMs = choices();
showTarget("least balancedness over all shards", least, "", "at least", TARGETS.balancedness);
showTarget("moves that keeping leaves when loads drift", movedPart, "", "at most", TARGETS.movedPart);
showTarget("a plan that keeps what lies", planMs, "ms", "at most", TARGETS.planMs);
showTarget("choice of copies", chooseMs, "ms", "at most", TARGETS.chooseMs);
const met =
  least >= TARGETS.balancedness &&
  movedPart <= TARGETS.movedPart &&
  planMs <= TARGETS.planMs &&
  chooseMs <= TARGETS.chooseMs;
console.log(JSON.stringify({ leastBalancedness: least, movedPart, planMs, chooseMs, targets: TARGETS, met }));
