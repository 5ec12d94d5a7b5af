// Puts a shard's experts into its thread: one graph a layer with the layer's slots side by side, run once to prove it.
import type { Bundle } from "@moevie/bundle";
import type { OnnxThread } from "@moevie/runtime";
import type { ShardPlacement } from "@moevie/placement";

/** The experts a shard holds of one layer, ascending, which is the order of the graph's segments. */
export type LayerSlots = ReadonlyMap<number, Uint16Array>;

export function slotsByLayer(shard: ShardPlacement): LayerSlots {
  const experts = new Map<number, number[]>();
  for (const [layer, expert] of shard.slots) experts.set(layer, [...(experts.get(layer) ?? []), expert]);
  return new Map([...experts].map(([layer, list]) => [layer, Uint16Array.from(list.sort((a, b) => a - b))]));
}

/** Name of a layer's graph in the thread. */
export function layerKey(layer: number): string {
  return `experts.${layer}`;
}

/** Loads every layer, of rows `hidden` wide, and runs it on one row a slot. Throws BUNDLE_CORRUPT, UNSUPPORTED or OUT_OF_MEMORY. */
export async function loadSlots(bundle: Bundle, hidden: number, slots: LayerSlots, thread: OnnxThread): Promise<void> {
  for (const [layer, experts] of slots) {
    await thread.load(layerKey(layer), await bundle.expertGraph(layer, [...experts]));
    await thread.run(layerKey(layer), {
      rows: { type: "float32", dims: [experts.length, hidden], data: new Float32Array(experts.length * hidden) },
      counts: { type: "int64", dims: [experts.length], data: new BigInt64Array(experts.length).fill(1n) },
    });
  }
}
