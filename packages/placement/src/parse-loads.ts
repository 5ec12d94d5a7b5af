// Loads by layer and expert from JSON. Pure.
import { PlacementError, asArray, asNumber } from "./placement-error.ts";

const LAYERS_MAX = 1024;
const EXPERTS_MAX = 4096;

/**
 * Reads `[[load, …], …]`, [layers][experts], or an object that has them as its `loads`: rows an expert was asked for, or anything in
 * proportion to it, from 0 to 2^53 - 1. Throws PlacementError naming the field.
 */
export function parseLoads(value: unknown): Float64Array[] {
  const isObject = typeof value === "object" && value !== null && !Array.isArray(value);
  const rows = asArray("loads", isObject ? (value as Record<string, unknown>)["loads"] : value, LAYERS_MAX);
  const layers = rows.map((row, layer) =>
    Float64Array.from(asArray(`loads[${layer}]`, row, EXPERTS_MAX), (load, expert) =>
      asNumber(`loads[${layer}][${expert}]`, load, 0, Number.MAX_SAFE_INTEGER),
    ),
  );
  const experts = layers[0]?.length ?? 0;
  if (experts === 0) {
    throw new PlacementError(layers.length === 0 ? "loads" : "loads[0]", "has 0 entries, must have at least 1");
  }
  layers.forEach((layer, index) => {
    if (layer.length !== experts)
      throw new PlacementError(`loads[${index}]`, `has ${layer.length} entries, must have ${experts} as loads[0]`);
  });
  return layers;
}
