// A placement for shards of which some have no room for all it gives them: what they cannot load stays where it is, or goes to others. Pure.
import { balancedness, equalLoads, slotLoads } from "./measure.ts";
import { ofLayer, type Placement, type SlotAssignment } from "./placement.ts";
import type { LayerShards } from "./plan-shape.ts";

export interface BoundOptions {
  readonly wanted: Placement;
  /** What the shards of `wanted` hold now, in its order. */
  readonly held: Placement;
  /** By shard, the most experts of a layer that it has room to load, what it keeps of them included; undefined: as many as it is given. */
  readonly rooms: readonly (number | undefined)[];
  /** [layers][experts]. */
  readonly loads: readonly Float64Array[];
}

export interface BoundPlacement {
  readonly placement: Placement;
  /** Under equal shares; over shards, and over slots that hold a copy. */
  readonly balancedness: number;
  readonly slotsBalancedness: number;
  /** Experts of `wanted` that no shard has room for. */
  readonly unplaced: readonly SlotAssignment[];
}

/**
 * A layer is loaded as a whole beside what it was, so a shard of `room` takes new experts only up to it, what it holds counted, and what is
 * used most first; and it gives experts up only where what is left does not pass `room`. An expert that is wanted on such a shard alone goes
 * to one that holds it already, else to the one that carries least. In a layer with experts that nobody holds only these are placed: whatever
 * else moved would take room from them. Where no shard has a bound it is `wanted` as it is.
 */
export function boundShards({ wanted, held, rooms, loads }: BoundOptions): BoundPlacement {
  const layers = loads.map((layer, index) => {
    const [want, have] = [wanted, held].map(({ shards }) => shards.map((shard) => ofLayer(shard, index)));
    return boundLayer(want ?? [], have ?? [], rooms, layer);
  });
  return {
    placement: {
      epoch: wanted.epoch,
      shards: wanted.shards.map((_, shard) => ({
        slots: layers.flatMap(({ shards }, layer) =>
          (shards[shard] ?? []).map((expert): SlotAssignment => [layer, expert]),
        ),
      })),
    },
    balancedness: balancedness(
      layers.map(({ shards }, layer) => equalLoads(shards, loads[layer] ?? new Float64Array())),
    ),
    slotsBalancedness: balancedness(
      layers.map(({ shards }, layer) => slotLoads(shards, loads[layer] ?? new Float64Array())),
    ),
    unplaced: layers.flatMap(({ unplaced }, layer) => unplaced.map((expert): SlotAssignment => [layer, expert])),
  };
}

function boundLayer(
  wanted: LayerShards,
  held: LayerShards,
  rooms: readonly (number | undefined)[],
  loads: Float64Array,
): { readonly shards: LayerShards; readonly unplaced: readonly number[] } {
  const known = new Set(held.flat());
  const isShort = rooms.some((room) => room !== undefined) && wanted.flat().some((expert) => !known.has(expert));
  const shards = isShort
    ? wanted.map((_, shard) => [...(held[shard] ?? [])])
    : wanted.map((experts, shard) => taken(experts, held[shard] ?? [], rooms[shard], loads));
  const placed = new Set(shards.flat());
  const lost = [...new Set(wanted.flat())].filter((expert) => !placed.has(expert)).sort(mostUsed(loads));
  const unplaced = lost.filter((expert) => {
    const carried = equalLoads(shards, loads);
    const least = (a: number, b: number): number =>
      (carried[a] ?? 0) - (carried[b] ?? 0) || (shards[a]?.length ?? 0) - (shards[b]?.length ?? 0) || a - b;
    const all = [...shards.keys()];
    const [holder] = all.filter((shard) => held[shard]?.includes(expert)).sort(least);
    const [other] = all.filter((shard) => hasRoom(shards[shard] ?? [], held[shard] ?? [], rooms[shard])).sort(least);
    const shard = holder ?? other;
    if (shard !== undefined) shards[shard]?.push(expert);
    return shard === undefined;
  });
  return { shards: shards.map((experts, shard) => loadable(experts, held[shard] ?? [], rooms[shard])), unplaced };
}

/** Fewer than a shard holds are loaded anew, too: what has no room for that, keeps all. */
function loadable(experts: readonly number[], held: readonly number[], room: number | undefined): readonly number[] {
  const isLess = held.some((expert) => !experts.includes(expert));
  return isLess && experts.length > (room ?? Infinity) ? held : experts;
}

/** What a shard that holds `held` and has so much room takes of `experts`. */
function taken(
  experts: readonly number[],
  held: readonly number[],
  room: number | undefined,
  loads: Float64Array,
): number[] {
  if (room === undefined) return [...experts];
  const kept = experts.filter((expert) => held.includes(expert));
  const added = experts.filter((expert) => !held.includes(expert)).sort(mostUsed(loads));
  const target = new Set([...kept, ...added.slice(0, Math.max(0, room - held.length))]);
  return experts.filter((expert) => target.has(expert));
}

function hasRoom(experts: readonly number[], held: readonly number[], room: number | undefined): boolean {
  return room === undefined || new Set([...experts, ...held]).size < room;
}

const mostUsed =
  (loads: Float64Array) =>
  (a: number, b: number): number =>
    (loads[b] ?? 0) - (loads[a] ?? 0) || a - b;
