// What one node is to hold: copies for its experts, and its shards for the copies. Pure.
import type { Bins } from "./bins.ts";
import { heaviest } from "./level.ts";
import { countCopies } from "./measure.ts";
import { pack } from "./pack.ts";
import type { LayerShards } from "./plan-shape.ts";
import { replicate } from "./replicate.ts";

/** Part of the best thinkable balance that is good enough to leave EPLB's copies as they are. */
const EVEN_ENOUGH = 0.9;
/** A plan is only given up for one whose heaviest shard carries less than this part. */
const WORTH_IT = 0.98;
/** The limit to the copies of an expert falls by one part in this many, at least by one, from try to try. */
const LIMIT_STEPS = 8;

/** What the shards of one node are to hold; or, one level up, groups for experts and nodes for shards. */
export interface NodePlan {
  /** One entry a copy: the experts of the node, then the further copies in the order they were made. */
  readonly copies: readonly number[];
  /** Load of one copy by expert, [experts]: copies share equally. */
  readonly shares: Float64Array;
  readonly bins: Bins;
}

/** The shards of all nodes, in order. */
export function shardsOf(plans: readonly NodePlan[]): LayerShards {
  return plans.flatMap(({ bins }) => bins.experts);
}

/**
 * EPLB's copies, unless they leave the shards clearly uneven: a shard that two hot experts share carries more than one that has a single
 * copy more of either would. Then fewer copies an expert are tried, too.
 */
export function planNode(experts: readonly number[], loads: Float64Array, slots: number, shards: number): NodePlan {
  // Where nothing is known of any expert, each counts the same: copies would weigh nothing otherwise.
  const known = experts.some((expert) => (loads[expert] ?? 0) > 0);
  const weights = known ? loads : new Float64Array(loads.length).fill(1);
  const published = packCopies(replicate(experts, weights, slots, shards), weights, shards);
  const mean = published.bins.loads.reduce((sum, load) => sum + load, 0) / shards;
  const largestShare = experts.reduce((most, expert) => Math.max(most, published.shares[expert] ?? 0), 0);
  const goal = Math.max(mean, largestShare) / EVEN_ENOUGH;
  const most = heaviest(countCopies([published.copies], loads.length));
  let best = published;
  for (let limit = most - 1; limit * experts.length >= slots; limit -= Math.ceil(limit / LIMIT_STEPS)) {
    if (heaviest(best.bins.loads) <= goal) break;
    const fewer = packCopies(replicate(experts, weights, slots, limit), weights, shards);
    if (heaviest(fewer.bins.loads) < heaviest(best.bins.loads) * WORTH_IT) best = fewer;
  }
  return best;
}

function packCopies(copies: readonly number[], weights: Float64Array, shards: number): NodePlan {
  const counts = countCopies([copies], weights.length);
  const shares = weights.map((weight, expert) => weight / Math.max(1, counts[expert] ?? 0));
  return { copies, shares, bins: pack(copies, shares, shards) };
}
