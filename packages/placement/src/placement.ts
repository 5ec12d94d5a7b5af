// Which slot of which shard holds which expert of which layer. Pure: no input or output, no clock, no logger.
import { PlacementError, asArray, asInteger, asObject } from "./placement-error.ts";

/** One copy of one expert: its layer and its logical id. Its place in `slots` is the slot's number. */
export type SlotAssignment = readonly [layer: number, expert: number];

export interface ShardPlacement {
  readonly slots: readonly SlotAssignment[];
}

/** A placement; `epoch` rises by one whenever any slot changes. `shards[i]` is the shard with index i. */
export interface Placement {
  readonly epoch: number;
  readonly shards: readonly ShardPlacement[];
}

/** The sizes a placement is made for. */
export interface ModelExperts {
  readonly layers: number;
  readonly experts: number;
}

const PLACEMENT_SHARDS_MAX = 4096;
const PLACEMENT_SLOTS_MAX = 65_536;
/**
 * One copy of every expert, spread evenly: expert e of layer l lies on shard (e + l) mod shards, so that what does not
 * divide evenly falls on another shard in each layer.
 */
export function spread(layers: number, experts: number, shards: number): Placement {
  asInteger("layers", layers, 1, PLACEMENT_SLOTS_MAX);
  asInteger("experts", experts, 1, PLACEMENT_SLOTS_MAX);
  asInteger("shards", shards, 1, PLACEMENT_SHARDS_MAX);
  const slots: SlotAssignment[][] = Array.from({ length: shards }, () => []);
  for (let layer = 0; layer < layers; layer++) {
    for (let expert = 0; expert < experts; expert++) {
      slots[(expert + layer) % shards]?.push([layer, expert]);
    }
  }
  return { epoch: 1, shards: slots.map((list) => ({ slots: list })) };
}

/**
 * Reads an explicit placement `{"epoch":1,"shards":[{"slots":[[layer,expert],…]},…]}`. Every expert of every layer must
 * have at least one slot and no shard may hold one expert twice. Throws PlacementError naming the field.
 */
export function parsePlacement(value: unknown, model: ModelExperts): Placement {
  const root = asObject("placement", value);
  const epoch = asInteger("epoch", root["epoch"], 1, Number.MAX_SAFE_INTEGER);
  const list = asArray("shards", root["shards"], PLACEMENT_SHARDS_MAX);
  const shards = list.map((entry, index) => parseShard(`shards[${index}]`, entry, model));
  const placement = { epoch, shards };
  const missing = uncovered(placement.shards, model)[0];
  if (missing) throw new PlacementError("shards", `no shard holds expert ${missing[1]} of layer ${missing[0]}`);
  return placement;
}

/** The experts, as [layer, expert] in ascending order, which none of the given shards holds. */
export function uncovered(shards: readonly ShardPlacement[], model: ModelExperts): SlotAssignment[] {
  const held = new Uint8Array(model.layers * model.experts);
  for (const shard of shards) {
    for (const [layer, expert] of shard.slots) {
      if (layer < model.layers && expert < model.experts) held[layer * model.experts + expert] = 1;
    }
  }
  const missing: SlotAssignment[] = [];
  for (let at = 0; at < held.length; at++) {
    if (held[at] === 0) missing.push([Math.floor(at / model.experts), at % model.experts]);
  }
  return missing;
}

/** The experts of one layer that a shard has, in the order of their slots. */
export function ofLayer({ slots }: ShardPlacement, layer: number): number[] {
  return slots.flatMap(([of, expert]) => (of === layer ? [expert] : []));
}

function parseShard(field: string, value: unknown, model: ModelExperts): ShardPlacement {
  const slots = asArray(`${field}.slots`, asObject(field, value)["slots"], PLACEMENT_SLOTS_MAX);
  const seen = new Set<number>();
  return {
    slots: slots.map((entry, index) => {
      const at = `${field}.slots[${index}]`;
      const pair = asArray(at, entry, 2);
      const layer = asInteger(`${at}[0]`, pair[0], 0, model.layers - 1);
      const expert = asInteger(`${at}[1]`, pair[1], 0, model.experts - 1);
      const key = layer * model.experts + expert;
      if (seen.has(key)) throw new PlacementError(at, `expert ${expert} of layer ${layer} is already on this shard`);
      seen.add(key);
      return [layer, expert] as const;
    }),
  };
}
