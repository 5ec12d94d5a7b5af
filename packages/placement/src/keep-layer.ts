// Keeps experts where they are: a plan made from loads alone moves nearly everything when loads change a little, and every move is a
// file read and a graph started. Pure.
import { emptyBins, fill, put, type Bins } from "./bins.ts";
import { keepSlots } from "./keep-slots.ts";
import { heaviest, level } from "./level.ts";
import { match } from "./match.ts";
import { countCopies } from "./measure.ts";
import { shardsOf, type NodePlan } from "./plan-node.ts";
import type { LayerShards } from "./plan-shape.ts";

/**
 * Shards for one of `candidates`, each one plan a node, rearranged so that little is new to `before` [shards][any]: of all arrangements,
 * the candidates as they are among them, the first of those that move least.
 */
export function keepLayer(candidates: readonly (readonly NodePlan[])[], before: LayerShards): LayerShards {
  const arranged = candidates.flatMap((plans) => [shardsOf(plans), keepNodes(plans, before)]);
  return fewestMoves(arranged, before).map((experts, shard) => keepSlots(before[shard] ?? [], experts));
}

/** What one node was to hold may go to another whole node; within a node, copies go where balance allows. */
function keepNodes(plans: readonly NodePlan[], before: LayerShards): LayerShards {
  const perNode = before.length / plans.length;
  const had = plans.map((_, node) => before.slice(node * perNode, (node + 1) * perNode));
  const nodeOf = match(
    plans.map(({ copies }) => copies),
    had.map((shards) => shards.flat()),
  );
  const kept: LayerShards[] = [];
  plans.forEach((plan, index) => {
    const node = nodeOf[index] ?? 0;
    kept[node] = keepBins(plan, had[node] ?? []);
  });
  return kept.flat();
}

/** Either the plan's bins under other names, or what was there, mended, where that is as even. */
export function keepBins({ copies, shares, bins }: NodePlan, had: LayerShards): LayerShards {
  const shardOf = match(bins.experts, had);
  const renamed: (readonly number[])[] = [];
  bins.experts.forEach((experts, bin) => {
    renamed[shardOf[bin] ?? 0] = experts;
  });
  const mended = mend(copies, shares, bins.size, had);
  const even = level(mended, shares, heaviest(bins.loads), had);
  return fewestMoves(even ? [renamed, mended.experts] : [renamed], had);
}

/** What lies there already less surplus copies, filled up with missing ones. */
function mend(copies: readonly number[], shares: Float64Array, size: number, had: LayerShards): Bins {
  const missing = countCopies([copies], shares.length);
  const take = (expert: number): boolean => {
    const wanted = (missing[expert] ?? 0) > 0;
    if (wanted) missing[expert] = (missing[expert] ?? 0) - 1;
    return wanted;
  };
  const bins = emptyBins(had.length, size);
  had.forEach((experts, bin) => {
    for (const expert of experts) {
      if ((bins.experts[bin]?.length ?? 0) < size && take(expert)) put(bins, bin, expert, shares);
    }
  });
  fill(bins, copies.filter(take), shares);
  return bins;
}

/** The first of those with the fewest experts that are new to their shard. */
function fewestMoves(candidates: readonly LayerShards[], before: LayerShards): LayerShards {
  const moves = candidates.map((shards) =>
    shards.reduce(
      (sum, experts, shard) => sum + experts.filter((expert) => before[shard]?.includes(expert) !== true).length,
      0,
    ),
  );
  return candidates[moves.indexOf(Math.min(...moves))] ?? [];
}
