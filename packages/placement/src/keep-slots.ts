// Within a shard, experts that stay keep their slots. Pure.

/** `after` in an order in which every expert that `before` has, too, lies in its old slot; the others fill up in their own order. */
export function keepSlots(before: readonly number[], after: readonly number[]): number[] {
  const left = [...after];
  const slots = after.map((_, slot) => {
    const at = left.indexOf(before[slot] ?? -1);
    return at < 0 ? -1 : (left.splice(at, 1)[0] ?? -1);
  });
  return slots.map((expert) => (expert < 0 ? (left.shift() ?? -1) : expert));
}
