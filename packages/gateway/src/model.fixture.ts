// What the tests of this package say the served bundle decides; each changes what it is about.
import type { ModelDefaults } from "./valid-video-spec.ts";

export const MODEL: ModelDefaults = {
  name: "m",
  variants: { standard: { steps: 1, guidance: 1 } },
  sampler: "euler",
  samplers: ["euler"],
  shift: 3,
  grid: "diffusers",
  grids: ["diffusers", "reference"],
  boundary: undefined,
  frameRate: 8,
  temporalStride: 4,
  negativePrompt: "",
  draws: "trained",
  referenceAllowed: false,
  trained: { seconds: 2, width: 160, height: 90 },
};
