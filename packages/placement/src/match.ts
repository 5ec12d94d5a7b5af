// Pairs sets of experts with places that have many of them already. Pure.
import type { LayerShards } from "./plan-shape.ts";

interface Pair {
  readonly set: number;
  readonly place: number;
  /** Experts that both have. */
  readonly shared: number;
}

/**
 * For each of `sets` one of as many `places`: the pair that shares most experts first, of equal ones the lowest set, then the lowest
 * place; sets that share nothing get the places that are left, in order.
 */
export function match(sets: LayerShards, places: LayerShards): Int32Array {
  const placeOf = new Int32Array(sets.length).fill(-1);
  const taken = new Uint8Array(places.length);
  for (const { set, place } of pairsOf(sets, places)) {
    if (placeOf[set] !== -1 || taken[place] === 1) continue;
    placeOf[set] = place;
    taken[place] = 1;
  }
  let free = taken.indexOf(0);
  return placeOf.map((place) => {
    if (place !== -1) return place;
    const given = free;
    free = taken.indexOf(0, free + 1);
    return given;
  });
}

/** Pairs that share something, in the order in which they are taken. */
function pairsOf(sets: LayerShards, places: LayerShards): Pair[] {
  const placesOf = new Map<number, number[]>();
  places.forEach((experts, place) => {
    for (const expert of experts) placesOf.set(expert, [...(placesOf.get(expert) ?? []), place]);
  });
  const pairs = sets.flatMap((experts, set): Pair[] => {
    const shared = new Map<number, number>();
    for (const expert of experts) {
      for (const place of placesOf.get(expert) ?? []) shared.set(place, (shared.get(place) ?? 0) + 1);
    }
    return [...shared].map(([place, count]) => ({ set, place, shared: count }));
  });
  return pairs.sort((a, b) => b.shared - a.shared || a.set - b.set || a.place - b.place);
}
