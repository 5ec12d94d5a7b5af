// Which slot of which shard holds which expert of which layer. Pure: no input or output, no clock, no logger.

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
const SHOWN_CHARACTERS_MAX = 80;

/** A placement that cannot be used. `field` names the place in the file. */
export class PlacementError extends Error {
  readonly field: string;
  constructor(field: string, message: string) {
    super(`${field}: ${message}`);
    this.name = "PlacementError";
    this.field = field;
  }
}

/**
 * One copy of every expert, spread evenly: expert e of layer l lies on shard (e + l) mod shards, so that what does not
 * divide evenly falls on another shard in each layer.
 */
export function spread(layers: number, experts: number, shards: number): Placement {
  checkSize("layers", layers, PLACEMENT_SLOTS_MAX);
  checkSize("experts", experts, PLACEMENT_SLOTS_MAX);
  checkSize("shards", shards, PLACEMENT_SHARDS_MAX);
  const slots: SlotAssignment[][] = Array.from({ length: shards }, () => []);
  for (let layer = 0; layer < layers; layer++) {
    for (let expert = 0; expert < experts; expert++) {
      slots[(expert + layer) % shards]?.push([layer, expert]);
    }
  }
  return { epoch: 1, shards: slots.map((list) => ({ slots: list })) };
}

/**
 * Whole denoisers, `experts` of them as one layer: shard s holds expert s mod experts, so a shard has one and each has as many copies as
 * there are shards to spare; with fewer shards than experts some hold several.
 */
export function copies(experts: number, shards: number): Placement {
  if (shards < experts) return spread(1, experts, shards);
  checkSize("experts", experts, PLACEMENT_SLOTS_MAX);
  checkSize("shards", shards, PLACEMENT_SHARDS_MAX);
  return { epoch: 1, shards: Array.from({ length: shards }, (_, shard) => ({ slots: [[0, shard % experts]] })) };
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

function checkSize(field: string, value: number, maximum: number): void {
  asInteger(field, value, 1, maximum);
}

/** `value` as a message may show it. */
function shown(value: unknown): string {
  return JSON.stringify(value)?.slice(0, SHOWN_CHARACTERS_MAX) ?? "missing";
}

function asObject(field: string, value: unknown): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new PlacementError(field, `is ${shown(value)}, must be an object`);
  }
  return value as Record<string, unknown>;
}

function asArray(field: string, value: unknown, maximum: number): unknown[] {
  if (!Array.isArray(value)) throw new PlacementError(field, `is ${shown(value)}, must be a list`);
  if (value.length > maximum) {
    throw new PlacementError(field, `has ${value.length} entries, must have at most ${maximum}`);
  }
  return value;
}

function asInteger(field: string, value: unknown, minimum: number, maximum: number): number {
  if (typeof value !== "number" || !Number.isInteger(value) || value < minimum || value > maximum) {
    throw new PlacementError(field, `is ${shown(value)}, must be a whole number from ${minimum} to ${maximum}`);
  }
  return value;
}
