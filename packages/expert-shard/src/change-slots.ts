// What a shard holds after a change of one layer. Pure.
import type { HeldSlot, Holds } from "@moevie/fabric";
import type { ValidChange } from "./valid-change.ts";

/** Experts that stay keep their slots; new ones take the lowest free numbers. */
export function changeSlots(
  { digest, slots }: Holds,
  { layer, experts, epoch }: Pick<ValidChange, "layer" | "experts" | "epoch">,
): Holds {
  const kept = slots.filter((slot) => slot.layer !== layer || experts.includes(slot.expert));
  const taken = new Set(kept.map(({ slot }) => slot));
  const had = new Set(kept.filter((slot) => slot.layer === layer).map(({ expert }) => expert));
  let free = 0;
  const added = experts
    .filter((expert) => !had.has(expert))
    .map((expert): HeldSlot => {
      while (taken.has(free)) free++;
      return { layer, expert, slot: free++ };
    });
  return { digest, epoch, slots: [...kept, ...added].sort((a, b) => a.slot - b.slot) };
}
