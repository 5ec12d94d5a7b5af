// The model a gateway of the tests serves, and the facts of a clip.

export const MODEL = {
  name: "starter",
  variants: { standard: { steps: 4, guidance: 5 }, draft: { steps: 3, guidance: 1 } },
  sampler: "unipc",
  samplers: ["unipc", "euler"],
  shift: 3,
  grid: "diffusers",
  grids: ["diffusers", "reference"],
  boundary: undefined,
  frameRate: 8,
  temporalStride: 4,
  negativePrompt: "",
  draws: "trained" as const,
  referenceAllowed: false,
  trained: { seconds: 2, width: 144, height: 80 },
};

export const FACTS = {
  sizeBytes: 3,
  sha256: "ab",
  codec: "h264",
  pixelFormat: "yuv420p",
  width: 1280,
  height: 720,
  fps: 24,
  frameCount: 48,
};
