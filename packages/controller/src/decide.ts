// Whether experts are to move, and where to. Pure: the caller asks, waits and moves.
import { placementOf, planPlacement, uncovered } from "@moevie/placement";
import type { ModelExperts, Placement, PlacementPlan } from "@moevie/placement";

export interface Situation {
  readonly model: ModelExperts;
  /** Rows by layer and expert of late, [layers][experts]. */
  readonly loads: readonly Float64Array[];
  /** What the shards are to hold now. */
  readonly current: Placement;
  /** Slots of a layer over all shards that there are to be. */
  readonly slots: number;
  readonly gainMin: number;
  /** The placement is old enough to change for a gain. */
  readonly mature: boolean;
}

export interface Decision {
  readonly plan: PlacementPlan;
  /** Balancedness as it is and as it would be. */
  readonly before: number;
  readonly after: number;
  /** Undefined: all stays. */
  readonly placement: Placement | undefined;
  readonly why: string;
}

/** Experts move for a gain that is worth it, or because one has no shard. */
export function decide({ model, loads, current, slots, gainMin, mature }: Situation): Decision {
  const shards = current.shards.length;
  // The shards that are left take what the model needs, and no more than one copy of an expert each.
  const perShard = Math.min(model.experts, Math.ceil(Math.max(slots, model.experts) / shards));
  const shape = { slots: perShard * shards, shards, groups: 1, nodes: 1 };
  const plan = planPlacement(loads, shape, current);
  const [before, after] = [plan.balancedness.before ?? 0, plan.balancedness.equal];
  const judged = (moves: boolean, why: string): Decision => ({
    plan,
    before,
    after,
    placement: moves ? placementOf(plan, current.epoch + 1) : undefined,
    why,
  });
  const missing = uncovered(current.shards, model)[0];
  if (missing !== undefined) return judged(true, `no shard holds expert ${missing[1]} of layer ${missing[0]}`);
  if (loads.every((layer) => layer.every((load) => load === 0))) return judged(false, "no load is known");
  const gain = `balancedness would go from ${before.toFixed(3)} to ${after.toFixed(3)}`;
  if (after - before < gainMin) return judged(false, `${gain}, less than ${gainMin} more`);
  return judged(mature, mature ? gain : `${gain}, once the placement is old enough`);
}
