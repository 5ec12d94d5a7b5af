// Public entry of diffusion: noise schedules, samplers, guidance, temporal windows and seeded noise. Pure: no I/O, no clock, imports nothing of ours.
export { guide } from "./guidance.ts";
export {
  EXPLICIT_GRID,
  NOISE_GRIDS,
  isNoiseGrid,
  noiseSchedule,
  type NoiseGrid,
  type NoiseSchedule,
  type NoiseScheduleOptions,
} from "./noise-schedule.ts";
export { philox4x32 } from "./philox.ts";
export { createSampler, SAMPLERS, type Sampler, type SamplerName, type SamplerState } from "./sampler.ts";
export { fillNoise, seededNoise } from "./seeded-noise.ts";
export { blendWindow, cutWindow, latentWindows, type LatentWindow, type WindowOptions } from "./windows.ts";
