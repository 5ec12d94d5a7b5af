// A plan for all layers: what each shard is to hold, what it will carry, and what has to move for it. Pure.
import { balancedness, countCopies, creditLoads, equalLoads, leastHeaviest, slotLoads } from "./measure.ts";
import { PlacementError } from "./placement-error.ts";
import type { Placement, SlotAssignment } from "./placement.ts";
import { planLayer } from "./plan-layer.ts";
import { shapeProblems, type LayerShards, type PlanShape } from "./plan-shape.ts";

/** One slot whose expert changes; slots are counted through from shard to shard. */
export interface Move {
  readonly slot: number;
  /** What lay there; absent when nothing did. */
  readonly from?: number;
  readonly to: number;
}

export interface LayerPlan {
  readonly shards: LayerShards;
  /** Load by expert as given, [experts]. */
  readonly loads: Float64Array;
  /** Copies by expert, [experts]. */
  readonly copies: Int32Array;
  /** Load by shard, [shards], when copies share equally, and when rows go where credits are free. */
  readonly equal: Float64Array;
  readonly credits: Float64Array;
  /** Experts new to their shard; none without a placement to keep. */
  readonly moves: readonly Move[];
}

/** Mean over largest load of a shard, over all layers. */
export interface PlanBalance {
  readonly equal: number;
  readonly credits: number;
  /** What no placement of equal shares can pass. */
  readonly bound: number;
  /** The placement to keep, under the same loads and equal shares. */
  readonly before?: number;
  /** Mean over largest load of a slot that holds a copy; of the placement to keep, under the same loads. */
  readonly slots: number;
  readonly slotsBefore?: number;
}

export interface PlacementPlan {
  readonly shape: PlanShape;
  readonly layers: readonly LayerPlan[];
  readonly balancedness: PlanBalance;
}

/**
 * Places experts by their loads, [layers][experts], counting on copies that share equally. With `before` (any shards and slots), little
 * moves: see planLayer. Throws PlacementError for a shape that does not fit.
 */
export function planPlacement(loads: readonly Float64Array[], shape: PlanShape, before?: Placement): PlacementPlan {
  const [problem] = shapeProblems(shape, loads.length, loads[0]?.length ?? 0);
  if (problem !== undefined) throw new PlacementError(problem.field, `is ${problem.value}, must be ${problem.allowed}`);
  const had = before === undefined ? undefined : shardsByLayer(before, loads.length);
  const layers = loads.map((layer, index) => planned(layer, shape, had?.[index]));
  const means = sumOf(layers.map((layer) => layer.loads.reduce((sum, load) => sum + load, 0) / shape.shards));
  const least = sumOf(layers.map((layer) => leastHeaviest(layer.loads, shape)));
  return {
    shape,
    layers,
    balancedness: {
      equal: balancedness(layers.map(({ equal }) => equal)),
      credits: balancedness(layers.map(({ credits }) => credits)),
      bound: least === 0 ? 1 : means / least,
      slots: balancedness(layers.map((layer) => slotLoads(layer.shards, layer.loads))),
      ...(had === undefined
        ? {}
        : {
            before: balancedness(layers.map(({ loads }, index) => equalLoads(had[index] ?? [], loads))),
            slotsBefore: balancedness(layers.map(({ loads }, index) => slotLoads(had[index] ?? [], loads))),
          }),
    },
  };
}

/** The plan as a placement: a shard's slots go layer by layer. */
export function placementOf({ layers, shape }: PlacementPlan, epoch: number): Placement {
  const shards = Array.from({ length: shape.shards }, (_, shard) => ({
    slots: layers.flatMap((layer, index) =>
      (layer.shards[shard] ?? []).map((expert): SlotAssignment => [index, expert]),
    ),
  }));
  return { epoch, shards };
}

function planned(loads: Float64Array, shape: PlanShape, before: LayerShards | undefined): LayerPlan {
  const shards = planLayer(loads, shape, before);
  return {
    shards,
    loads,
    copies: countCopies(shards, loads.length),
    equal: equalLoads(shards, loads),
    credits: creditLoads(shards, loads),
    moves: before === undefined ? [] : movesBetween(before, shards),
  };
}

function movesBetween(before: LayerShards, after: LayerShards): Move[] {
  let slot = 0;
  return after.flatMap((experts, shard) =>
    experts.flatMap((to, rank): Move[] => {
      const from = before[shard]?.[rank];
      const at = slot++;
      if (before[shard]?.includes(to) === true) return [];
      return [{ slot: at, to, ...(from === undefined ? {} : { from }) }];
    }),
  );
}

/** A placement's experts, [layers][shards][any]. */
function shardsByLayer({ shards }: Placement, layers: number): number[][][] {
  const byLayer = Array.from({ length: layers }, () => shards.map((): number[] => []));
  shards.forEach(({ slots }, shard) => {
    for (const [layer, expert] of slots) byLayer[layer]?.[shard]?.push(expert);
  });
  return byLayer;
}

function sumOf(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0);
}
