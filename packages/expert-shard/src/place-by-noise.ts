// Where whole denoisers lie when nobody says: one on each shard, each as often as its share of a job's steps is. Every shard comes to the
// same answer on its own.
import type { Manifest, NoiseDenoiser } from "@moevie/bundle";
import { MoevieError } from "@moevie/contracts";
import { isNoiseGrid, noiseSchedule } from "@moevie/diffusion";
import { placementOf, planPlacement, spread, type Placement } from "@moevie/placement";

/** With fewer shards than experts some hold several, and there are no copies. Throws UNSUPPORTED for a grid this build has not. */
export function placeByNoise(
  manifest: Pick<Manifest, "schedule" | "variants">,
  denoiser: Pick<NoiseDenoiser, "gate" | "graphs">,
  shards: number,
): Placement {
  const experts = denoiser.graphs.length;
  if (shards < experts) return spread(1, experts, shards);
  const steps = stepsByExpert(manifest, denoiser.gate.from);
  return placementOf(planPlacement([steps], { slots: shards, shards, groups: 1, nodes: 1 }), 1);
}

/** Steps of standard quality that each expert serves, [experts]. */
function stepsByExpert(
  { schedule, variants }: Pick<Manifest, "schedule" | "variants">,
  from: readonly number[],
): Float64Array {
  const { steps, sigmas = [] } = variants.standard;
  const { shift, grid } = schedule;
  if (!isNoiseGrid(grid))
    throw new MoevieError("UNSUPPORTED", `The bundle's schedule.grid is "${grid}"; this build has no such.`);
  const served = new Float64Array(from.length);
  for (const timestep of noiseSchedule({ steps, shift, grid, sigmas }).timesteps) {
    const expert = from.findIndex((bound) => timestep >= bound);
    served[expert] = (served[expert] ?? 0) + 1;
  }
  return served;
}
