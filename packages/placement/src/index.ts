// Public entry of the placement package.
export type { ModelExperts, Placement, ShardPlacement, SlotAssignment } from "./placement.ts";
export { ofLayer, parsePlacement, spread, uncovered } from "./placement.ts";
export { PlacementError } from "./placement-error.ts";
export { boundShards, type BoundPlacement } from "./bound-shards.ts";
export { NO_HOLDER, chooseReplicas, type ReplicaChoice } from "./choose-replicas.ts";
export { chooseDonors } from "./choose-donors.ts";
export { holdersOf } from "./holders-of.ts";
export { parseLoads } from "./parse-loads.ts";
export { placementOf, planPlacement, type LayerPlan, type Move, type PlacementPlan, type PlanBalance } from "./plan.ts";
export { shapeProblems, type LayerShards, type PlanShape, type ShapeProblem } from "./plan-shape.ts";
export { balancedness, slotsByExpert } from "./measure.ts";
export { explainLayer, explainPlan } from "./explain.ts";
