// The published algorithm as plainly as it can be written, rule for rule from deepseek-ai/EPLB's eplb.py with stable ties: what the plan is
// compared with. It knows no rule against two copies on one shard, and gives experts without load to the first.

interface Packed {
  readonly bin: number[];
  readonly rank: number[];
}

function balancedPacking(weights: readonly number[], bins: number): Packed {
  const size = weights.length / bins;
  if (size === 1) return { bin: weights.map((_, item) => item), rank: weights.map(() => 0) };
  const bin = weights.map(() => -1);
  const rank = weights.map(() => -1);
  const loads = Array.from({ length: bins }, () => 0);
  const counts = Array.from({ length: bins }, () => 0);
  const order = weights.map((weight, item) => ({ weight, item })).sort((a, b) => b.weight - a.weight);
  for (const { weight, item } of order) {
    const open = loads.map((load, index) => ((counts[index] as number) < size ? load : Infinity));
    const best = open.indexOf(Math.min(...open));
    bin[item] = best;
    rank[item] = counts[best] as number;
    counts[best]!++;
    loads[best]! += weight;
  }
  return { bin, rank };
}

/** [slots]: the expert of each copy. */
export function replicateExperts(loads: readonly number[], slots: number): number[] {
  const copies = loads.map((_, expert) => expert);
  const counts = loads.map(() => 1);
  while (copies.length < slots) {
    const shares = loads.map((load, expert) => load / (counts[expert] as number));
    const best = shares.indexOf(Math.max(...shares));
    copies.push(best);
    counts[best]!++;
  }
  return copies;
}

/** [slots]: the expert of each slot of a layer. */
export function rebalanceExperts(
  loads: readonly number[],
  slots: number,
  groups: number,
  nodes: number,
  shards: number,
): number[] {
  if (groups % nodes !== 0) return rebalanceExperts(loads, slots, 1, 1, shards);
  const groupSize = loads.length / groups;
  const groupLoads = Array.from({ length: groups }, (_, group) =>
    loads.slice(group * groupSize, (group + 1) * groupSize).reduce((sum, load) => sum + load, 0),
  );
  const packed = balancedPacking(groupLoads, nodes);
  const result: number[] = Array.from({ length: slots }, () => -1);
  for (let node = 0; node < nodes; node++) {
    const experts = Array.from({ length: groups }, (_, group) => group)
      .filter((group) => packed.bin[group] === node)
      .sort((a, b) => (packed.rank[a] as number) - (packed.rank[b] as number))
      .flatMap((group) => Array.from({ length: groupSize }, (_, index) => group * groupSize + index));
    const local = experts.map((expert) => loads[expert] as number);
    const copies = replicateExperts(local, slots / nodes);
    const shares = copies.map((expert) => (local[expert] as number) / copies.filter((each) => each === expert).length);
    const { bin, rank } = balancedPacking(shares, shards / nodes);
    copies.forEach((expert, copy) => {
      const slot = (node * slots) / nodes + ((bin[copy] as number) * slots) / shards + (rank[copy] as number);
      result[slot] = experts[expert] as number;
    });
  }
  return result;
}
