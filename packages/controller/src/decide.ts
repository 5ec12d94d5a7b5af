// Whether experts are to move, and where to. Pure: the caller asks, waits and moves.
import { boundShards, placementOf, planPlacement, uncovered } from "@moevie/placement";
import type { ModelExperts, Placement, PlacementPlan, SlotAssignment } from "@moevie/placement";

export interface Situation {
  readonly model: ModelExperts;
  /** Rows by layer and expert of late, [layers][experts]. */
  readonly loads: readonly Float64Array[];
  /** What the shards are to hold now, and what they hold. */
  readonly current: Placement;
  readonly held: Placement;
  /** By shard, the most experts of a layer that it has room to load; undefined: as many as it is given. */
  readonly rooms: readonly (number | undefined)[];
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
  /** The same over slots that hold a copy. */
  readonly slotsBefore: number;
  readonly slotsAfter: number;
  /** Undefined: all stays. */
  readonly placement: Placement | undefined;
  readonly why: string;
  /** Experts that no shard has room for. */
  readonly unplaced: readonly SlotAssignment[];
}

/** Experts move for a gain that is worth it, or because one has no shard. */
export function decide(situation: Situation): Decision {
  const { model, loads, current, held, rooms, slots, gainMin, mature } = situation;
  const shards = current.shards.length;
  // The shards that are left take what the model needs, and no more than one copy of an expert each.
  const perShard = Math.min(model.experts, Math.ceil(Math.max(slots, model.experts) / shards));
  const shape = { slots: perShard * shards, shards, groups: 1, nodes: 1 };
  const plan = planPlacement(loads, shape, current);
  const wanted = placementOf(plan, current.epoch + 1);
  const bound = boundShards({ wanted, held, rooms, loads });
  const { placement, balancedness: after, slotsBalancedness: slotsAfter, unplaced } = bound;
  const { before = 0, slotsBefore = 0 } = plan.balancedness;
  const judged = (moves: boolean, why: string): Decision => ({
    plan,
    before,
    after,
    slotsBefore,
    slotsAfter,
    placement: moves ? placement : undefined,
    why,
    unplaced,
  });
  const missing = uncovered(current.shards, model);
  const homeless = new Set(unplaced.map(String));
  const placeable = missing.find((slot) => !homeless.has(String(slot)));
  const [layer, expert] = placeable ?? missing[0] ?? [];
  if (layer !== undefined) {
    const text = `no shard holds expert ${expert} of layer ${layer}`;
    return judged(placeable !== undefined, placeable === undefined ? `${text}, and none has room for it` : text);
  }
  if (loads.every((of) => of.every((load) => load === 0))) return judged(false, "no load is known");
  const gain = `balancedness would go from ${before.toFixed(3)} to ${after.toFixed(3)}`;
  if (after - before < gainMin) return judged(false, `${gain}, less than ${gainMin} more`);
  return judged(mature, mature ? gain : `${gain}, once the placement is old enough`);
}
