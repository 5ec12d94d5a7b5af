// How many copies each expert gets. Pure.

/**
 * Shares `slots` out among `experts`: one each, and every further one to the expert whose copies carry most, `loads[e] / copies`, the
 * first in the list of several; experts without any load tie at every count, so the one with fewest copies comes first. No expert gets
 * more than `copiesMax`: what is left goes to the next. Answers one entry a copy: the experts in the order given, then the further
 * copies in the order they were made. `slots` must be from experts.length to experts.length · copiesMax.
 * Source: deepseek-ai/EPLB, eplb.py, replicate_experts, which has no maximum.
 */
export function replicate(experts: readonly number[], loads: Float64Array, slots: number, copiesMax: number): number[] {
  const counts = new Int32Array(experts.length).fill(1);
  const copies = [...experts];
  while (copies.length < slots) {
    let best = -1;
    let most = -1;
    for (let at = 0; at < experts.length; at++) {
      const count = counts[at] as number;
      if (count >= copiesMax) continue;
      const share = (loads[experts[at] as number] as number) / count;
      if (share > most || (share === 0 && most === 0 && count < (counts[best] as number))) {
        best = at;
        most = share;
      }
    }
    counts[best] = (counts[best] as number) + 1;
    copies.push(experts[best] as number);
  }
  return copies;
}
