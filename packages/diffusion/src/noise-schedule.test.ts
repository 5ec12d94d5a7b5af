// Schedules against recorded grids of diffusers and of the Wan repository.
import { describe, expect, it } from "vitest";
import { GOLDEN, largestDifference } from "./goldens.fixture.ts";
import { noiseSchedule, type NoiseGrid } from "./noise-schedule.ts";

const GRIDS = {
  unipc: "diffusers",
  flow_match_euler: "flow-match-euler",
  unipc_reference_grid: "reference",
} as const satisfies Record<string, NoiseGrid>;
/** One unit in the last place of f32 near 1. */
const SIGMA_TOLERANCE = 1.2e-7;

describe("noiseSchedule", () => {
  for (const recorded of GOLDEN.schedules) {
    it(`gives the recorded ${recorded.kind} grid for ${recorded.num_steps} steps, shift ${recorded.shift}`, () => {
      const schedule = noiseSchedule({ steps: recorded.num_steps, shift: recorded.shift, grid: GRIDS[recorded.kind] });
      expect(largestDifference(schedule.sigmas, recorded.sigmas)).toBeLessThanOrEqual(SIGMA_TOLERANCE);
      expect([...schedule.timesteps]).toEqual(recorded.timesteps);
      expect(schedule.timesteps.filter((t) => t >= 875).length).toBe(recorded.high_noise_steps);
    });
  }

  it("takes explicit sigmas as they are", () => {
    const sigmas = GOLDEN.distilled_4_step.sigmas.slice(0, -1);
    const schedule = noiseSchedule({ steps: 4, shift: 5, grid: "explicit", sigmas });
    expect(largestDifference(schedule.sigmas, GOLDEN.distilled_4_step.sigmas)).toBeLessThanOrEqual(SIGMA_TOLERANCE);
    expect([...schedule.timesteps]).toEqual([1000, 937, 833, 625]);
  });

  it("agrees with the published check values of the reference grid", () => {
    const { sigmas, timesteps } = noiseSchedule({ steps: 40, shift: 12, grid: "reference" });
    expect(sigmas[0]).toBeCloseTo(0.999917, 6);
    expect(sigmas[1]).toBeCloseTo(0.997783, 6);
    expect(sigmas[39]).toBeCloseTo(0.23511, 6);
    expect(timesteps.slice(0, 4)).toEqual(Float32Array.of(999, 997, 995, 993));
    expect(timesteps.slice(25, 27)).toEqual(Float32Array.of(877, 865));
  });

  it("refuses steps, shifts and sigmas that make no schedule", () => {
    expect(() => noiseSchedule({ steps: 0, shift: 1, grid: "diffusers" })).toThrow(/steps is 0/);
    expect(() => noiseSchedule({ steps: 4, shift: 0, grid: "diffusers" })).toThrow(/shift is 0/);
    expect(() => noiseSchedule({ steps: 2, shift: 1, grid: "explicit", sigmas: [0.5, 0.5] })).toThrow(/sigma 1 is 0.5/);
    expect(() => noiseSchedule({ steps: 2, shift: 1, grid: "explicit", sigmas: [0.5] })).toThrow(/1 sigmas/);
  });
});
