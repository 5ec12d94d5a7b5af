// The sizes of a plan, and what must hold between them. Pure.

/** Sizes of a plan, the same for each of its layers. */
export interface PlanShape {
  /** Slots of a layer, over all shards. */
  readonly slots: number;
  readonly shards: number;
  /** Groups of experts that follow each other by id, kept together on a node. */
  readonly groups: number;
  /** Machines; each has as many shards, with indices that follow each other. */
  readonly nodes: number;
}

/** The experts of a layer by shard, [shards][slots / shards]; the place in the inner list is the slot. */
export type LayerShards = readonly (readonly number[])[];

export interface ShapeProblem {
  readonly field: keyof PlanShape;
  readonly value: number;
  /** What is allowed, as a phrase. */
  readonly allowed: string;
}

const SHARDS_MAX = 1024;
/** Slots of a layer, and of all layers together. */
const LAYER_SLOTS_MAX = 4096;
const SLOTS_MAX = 262_144;

/** Whether groups are kept together. Where they cannot be spread evenly over the nodes, all shards count as one node's. */
export function isHierarchical({ groups, nodes }: PlanShape): boolean {
  return nodes > 1 && groups % nodes === 0;
}

/** Everything wrong with `shape` for layers of `experts` experts; nothing: [] */
export function shapeProblems(shape: PlanShape, layers: number, experts: number): ShapeProblem[] {
  const { slots, shards, groups, nodes } = shape;
  const slotsMax = Math.min(LAYER_SLOTS_MAX, Math.floor(SLOTS_MAX / layers));
  const problems: ShapeProblem[] = [];
  const check = (field: keyof PlanShape, right: boolean, allowed: string): void => {
    if (!right) problems.push({ field, value: shape[field], allowed });
  };
  check("shards", whole(shards, 1, SHARDS_MAX), `a whole number from 1 to ${SHARDS_MAX}`);
  check(
    "slots",
    whole(slots, 1, slotsMax),
    `a whole number from 1 to ${slotsMax}${slotsMax < LAYER_SLOTS_MAX ? ` for ${layers} layers` : ""}`,
  );
  check("groups", whole(groups, 1, experts), `a whole number from 1 to the ${experts} experts of a layer`);
  check("nodes", whole(nodes, 1, SHARDS_MAX), "a whole number from 1 to the number of shards");
  if (problems.length > 0) return problems;
  check("slots", slots % shards === 0, `a multiple of the ${shards} shards`);
  check("slots", slots >= experts, `at least one for each of the ${experts} experts of a layer`);
  check("nodes", shards % nodes === 0, `a divisor of the ${shards} shards`);
  check("groups", groups % nodes !== 0 || experts % groups === 0, `a divisor of the ${experts} experts of a layer`);
  const shardsOfExpert = isHierarchical(shape) ? shards / nodes : shards;
  const most = experts * shardsOfExpert;
  const why = `${experts} experts of at most ${shardsOfExpert} copies, one a shard it may live on`;
  check("slots", slots <= most, `at most ${most}: ${why}`);
  return problems;
}

function whole(value: number, least: number, most: number): boolean {
  return Number.isInteger(value) && value >= least && value <= most;
}
