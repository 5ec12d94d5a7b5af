// How evenly a layer's shards are loaded. Pure.
import { replicate } from "./replicate.ts";
import type { LayerShards, PlanShape } from "./plan-shape.ts";

/** Sweeps over all experts of creditLoads; what a further one changes is below what a load is known to. */
const CREDIT_SWEEPS = 32;

/** Copies by expert, [experts]; a negative expert is an empty slot. */
export function countCopies(shards: LayerShards, experts: number): Int32Array {
  const copies = new Int32Array(experts);
  for (const held of shards) for (const expert of held) if (expert >= 0) copies[expert] = (copies[expert] ?? 0) + 1;
  return copies;
}

/** The slots of each expert, ascending, [experts][copies]; slots are counted through from shard to shard. */
export function slotsByExpert(shards: LayerShards, experts: number): number[][] {
  const slots: number[][] = Array.from({ length: experts }, () => []);
  shards.flat().forEach((expert, slot) => slots[expert]?.push(slot));
  return slots;
}

/** Load by shard, [shards], of loads by expert, [experts], when the copies of an expert share its rows equally. */
export function equalLoads(shards: LayerShards, loads: Float64Array): Float64Array {
  const copies = countCopies(shards, loads.length);
  return Float64Array.from(shards, (held) =>
    held.reduce((sum, expert) => sum + (loads[expert] ?? 0) / (copies[expert] ?? 1), 0),
  );
}

/** Load by slot that holds a copy, [copies], shard by shard: its share of its expert's load. */
export function slotLoads(shards: LayerShards, loads: Float64Array): Float64Array {
  const copies = countCopies(shards, loads.length);
  const held = shards.flat().filter((expert) => expert >= 0);
  return Float64Array.from(held, (expert) => (loads[expert] ?? 0) / (copies[expert] ?? 1));
}

/**
 * Load by shard when rows go where credits are free, that is where load is least: each expert in turn pours its load over its shards so that
 * the lightest fill up first, until that changes nothing. What it comes to is the most even sharing there is.
 */
export function creditLoads(shards: LayerShards, loads: Float64Array): Float64Array {
  const total = equalLoads(shards, loads);
  const copies = countCopies(shards, loads.length);
  const replicated = [...copies.keys()].filter((expert) => (copies[expert] ?? 0) > 1 && (loads[expert] ?? 0) > 0);
  const holders = replicated.map((expert) => shards.flatMap((held, shard) => (held.includes(expert) ? [shard] : [])));
  const poured = replicated.map((expert, i) =>
    new Float64Array((holders[i] ?? []).length).fill((loads[expert] ?? 0) / (copies[expert] ?? 1)),
  );
  for (let sweep = 0; sweep < CREDIT_SWEEPS; sweep++) {
    replicated.forEach((expert, i) =>
      pour(loads[expert] ?? 0, holders[i] ?? [], poured[i] ?? new Float64Array(0), total),
    );
  }
  return total;
}

/** Takes what one expert has `poured` [holders] out of `total` [shards] and pours `load` again, up to one level. */
function pour(load: number, holders: readonly number[], poured: Float64Array, total: Float64Array): void {
  holders.forEach((shard, i) => (total[shard] = (total[shard] ?? 0) - (poured[i] ?? 0)));
  const floors = holders.map((shard) => total[shard] ?? 0).sort((a, b) => a - b);
  let level = 0;
  let below = load;
  for (let count = 1; count <= floors.length; count++) {
    below += floors[count - 1] ?? 0;
    level = below / count;
    if (level <= (floors[count] ?? Infinity)) break;
  }
  holders.forEach((shard, i) => {
    poured[i] = Math.max(0, level - (total[shard] ?? 0));
    total[shard] = (total[shard] ?? 0) + (poured[i] ?? 0);
  });
}

/** Mean over largest load of a shard or slot, both summed over layers, [layers][shards or slots]; 1 where there is no load at all. */
export function balancedness(layers: readonly Float64Array[]): number {
  let [means, largest] = [0, 0];
  for (const loads of layers) {
    means += loads.reduce((sum, load) => sum + load, 0) / loads.length;
    largest += loads.reduce((most, load) => Math.max(most, load), 0);
  }
  return largest === 0 ? 1 : means / largest;
}

/**
 * A load that some shard carries under every placement of equal shares without two copies on a shard: the mean, or the largest share
 * that is left when copies are given out best.
 */
export function leastHeaviest(loads: Float64Array, { slots, shards }: PlanShape): number {
  const copies = replicate([...loads.keys()], loads, slots, shards);
  const counts = countCopies([copies], loads.length);
  const mean = loads.reduce((sum, load) => sum + load, 0) / shards;
  return loads.reduce((most, load, expert) => Math.max(most, load / (counts[expert] ?? 1)), mean);
}
