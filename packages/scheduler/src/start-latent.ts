// Step start-latent: the size of the job's latent and the seeded noise it begins as.
import { MoevieError, limit } from "@moevie/contracts";
import { fillNoise } from "@moevie/diffusion";
import type { JobSpec } from "@moevie/job-store";
import { readReferenceTensor } from "@moevie/runtime";
import type { ModelFacts } from "./model-facts.ts";
import { inSlices } from "./slices.ts";

/** [channels, frames, height, width], in cells. */
export type LatentShape = readonly [number, number, number, number];

/** Forgives the rounding of seconds * rate: 0.7 * 10 is 7. */
const FRAME_SLACK = 1e-9;

/** Frames the model makes: the smallest stride * n + 1 that covers the asked seconds at the model's rate. */
export function modelFrames(seconds: number, model: ModelFacts): number {
  const { temporalStride } = model.latent;
  const needed = Math.max(1, Math.ceil(seconds * model.frameRate - FRAME_SLACK));
  return Math.ceil((needed - 1) / temporalStride) * temporalStride + 1;
}

/** Throws OUT_OF_MEMORY, naming the bytes, when the latent is beyond what the services take. */
export function latentShape(spec: JobSpec, model: ModelFacts): LatentShape {
  const { channels, temporalStride, spatialStride, patch, size = spec } = model.latent;
  // Whole tokens; finishing cuts off what is beyond the asked size.
  const cells = (pixels: number, token: number): number => Math.ceil(pixels / (spatialStride * token)) * token;
  const [height, width] = [cells(size.height, patch[0]), cells(size.width, patch[1])];
  const frames = (modelFrames(spec.seconds, model) - 1) / temporalStride + 1;
  const bytes = channels * frames * height * width * Float32Array.BYTES_PER_ELEMENT;
  if (bytes > limit("latentBytesMax")) {
    throw new MoevieError(
      "OUT_OF_MEMORY",
      `The clip's latent needs ${bytes} bytes; at most ${limit("latentBytesMax")} fit.`,
    );
  }
  return [channels, frames, height, width];
}

/**
 * Standard normal noise: the latent at sigma 1, the same for one seed on every machine; or the tensor of the file that the request names in
 * the reference folder. Throws INVALID_FIELD for a file that is not such a tensor.
 */
export async function startLatent(spec: JobSpec, shape: LatentShape, referenceDir: string): Promise<Float32Array> {
  if (spec.initialNoise !== undefined)
    return readReferenceTensor(referenceDir, spec.initialNoise, "spec.initial_noise", [1, ...shape]);
  const latent = new Float32Array(shape.reduce((product, size) => product * size, 1));
  await inSlices(latent.length, (start, end) => fillNoise(spec.seed, latent, start, end));
  return latent;
}
