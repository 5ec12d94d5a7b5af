// Loads by layer and expert from JSON. Pure.
import { PlacementError, asArray, asNumber } from "./placement-error.ts";

const LAYERS_MAX = 1024;
const EXPERTS_MAX = 4096;

/**
 * Reads `[[load, …], …]`, [layers][experts], or an object that has them as its `rows`, as routers answer: rows that an expert was asked
 * for, or anything in proportion to it, from 0 to 2^53 - 1. Throws PlacementError naming the field.
 */
export function parseLoads(value: unknown): Float64Array[] {
  const isObject = typeof value === "object" && value !== null && !Array.isArray(value);
  const name = isObject ? "rows" : "loads";
  const list = asArray(name, isObject ? (value as Record<string, unknown>)["rows"] : value, LAYERS_MAX);
  const layers = list.map((layer, index) =>
    Float64Array.from(asArray(`${name}[${index}]`, layer, EXPERTS_MAX), (load, expert) =>
      asNumber(`${name}[${index}][${expert}]`, load, 0, Number.MAX_SAFE_INTEGER),
    ),
  );
  if (layers.length === 0) throw new PlacementError(name, "has 0 entries, must have at least 1");
  const experts = layers[0]?.length ?? 0;
  if (experts === 0) throw new PlacementError(`${name}[0]`, "has 0 entries, must have at least 1");
  layers.forEach(({ length }, index) => {
    if (length === experts) return;
    throw new PlacementError(`${name}[${index}]`, `has ${length} entries, must have ${experts} as ${name}[0]`);
  });
  return layers;
}
