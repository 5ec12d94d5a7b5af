// Public entry of the placement package.
export type { ModelExperts, Placement, ShardPlacement, SlotAssignment } from "./placement.ts";
export { PlacementError, copies, parsePlacement, spread, uncovered } from "./placement.ts";
export { NO_HOLDER, chooseHolders } from "./choose-holders.ts";
