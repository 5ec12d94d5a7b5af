// Samplers against recorded trajectories, and the promise that a saved state goes on bit for bit.
import { describe, expect, it } from "vitest";
import { DPMPP, GOLDEN, golden, largestDifference, type GoldenSchedule } from "./goldens.fixture.ts";
import { guide } from "./guidance.ts";
import { noiseSchedule, type NoiseSchedule } from "./noise-schedule.ts";
import { createSampler, SAMPLERS, type SamplerName } from "./sampler.ts";

const TRAJECTORY_TOLERANCE = 1e-5;

/** v = A x + B sigma sigma + C, each operation rounded to f32 as it was recorded. */
function fixedVelocity(x: Float32Array, sigma: number): Float32Array {
  const [a, b, c] = [golden("A"), golden("B"), golden("C")];
  return x.map((value, i) => {
    const noise = Math.fround(Math.fround((b[i] ?? 0) * sigma) * sigma);
    return Math.fround(Math.fround((a[i] ?? 0) * value) + noise) + (c[i] ?? 0);
  });
}

function scheduleOf(recorded: GoldenSchedule): NoiseSchedule {
  return { sigmas: Float32Array.from(recorded.sigmas), timesteps: Float32Array.from(recorded.timesteps) };
}

function run(name: SamplerName, schedule: NoiseSchedule, stopAt?: number): Float32Array {
  let sampler = createSampler(name, schedule);
  let x = golden("sample0");
  for (let i = 0; i < schedule.timesteps.length; i++) {
    if (i === stopAt) {
      const state = structuredClone(sampler.state());
      sampler = createSampler(name, schedule);
      sampler.restore(state);
      x = x.slice();
    }
    sampler.step(i, x, fixedVelocity(x, schedule.sigmas[i] ?? NaN));
  }
  return x;
}

describe("samplers", () => {
  for (const recorded of GOLDEN.schedules.filter((schedule) => schedule.samples !== null)) {
    it(`follow the recorded trajectory ${recorded.samples}`, () => {
      const schedule = scheduleOf(recorded);
      const sampler = createSampler(recorded.kind === "flow_match_euler" ? "euler" : "unipc", schedule);
      const x = golden("sample0");
      for (let i = 0; i < recorded.num_steps; i++) {
        const velocity = fixedVelocity(x, schedule.sigmas[i] ?? NaN);
        expect(largestDifference(velocity, golden(`${recorded.samples}.v.${i}`))).toBeLessThanOrEqual(
          TRAJECTORY_TOLERANCE,
        );
        sampler.step(i, x, velocity);
        expect(largestDifference(x, golden(`${recorded.samples}.sample.${i}`))).toBeLessThanOrEqual(
          TRAJECTORY_TOLERANCE,
        );
        const state = sampler.state();
        if (state.name !== "unipc") continue;
        expect(
          largestDifference(state.estimates.at(-1) ?? [], golden(`${recorded.samples}.x0.${i}`)),
        ).toBeLessThanOrEqual(TRAJECTORY_TOLERANCE);
        expect(
          largestDifference(state.lastLatent ?? [], golden(`${recorded.samples}.corrected.${i}`)),
        ).toBeLessThanOrEqual(TRAJECTORY_TOLERANCE);
      }
    });
  }

  for (const { steps, shift, sigmas, samples } of DPMPP) {
    it(`dpmpp follows diffusers' DPM++ over ${steps} steps of shift ${shift}`, () => {
      const schedule = { sigmas: Float32Array.from(sigmas), timesteps: new Float32Array(steps) };
      const sampler = createSampler("dpmpp", schedule);
      const x = golden("sample0");
      for (let i = 0; i < steps; i++) {
        sampler.step(i, x, fixedVelocity(x, schedule.sigmas[i] ?? NaN));
        expect(largestDifference(x, samples[i] ?? [])).toBeLessThanOrEqual(TRAJECTORY_TOLERANCE);
      }
    });
  }

  for (const name of SAMPLERS) {
    it(`${name}: a state saved after any step goes on to bit-identical latents`, () => {
      const schedule = noiseSchedule({ steps: 6, shift: 3, grid: "diffusers" });
      const whole = run(name, schedule);
      for (let stopAt = 0; stopAt < 6; stopAt++) expect(run(name, schedule, stopAt)).toEqual(whole);
    });

    it(`${name}: stays finite on a grid that begins at sigma 1`, () => {
      const schedule = noiseSchedule({ steps: 4, shift: 5, grid: "explicit", sigmas: [1, 0.9375, 0.8333, 0.625] });
      expect(run(name, schedule).every((value) => Number.isFinite(value))).toBe(true);
    });

    it(`${name}: reaches the clean latent in one step of an exact velocity`, () => {
      const schedule = noiseSchedule({ steps: 1, shift: 1, grid: "explicit", sigmas: [0.5] });
      const [clean, noise] = [golden("A"), golden("C")];
      const x = clean.map((value, i) => 0.5 * value + 0.5 * (noise[i] ?? 0));
      createSampler(name, schedule).step(
        0,
        x,
        noise.map((value, i) => value - (clean[i] ?? 0)),
      );
      expect(largestDifference(x, clean)).toBeLessThan(1e-6);
    });
  }

  it("refuse a state of another sampler", () => {
    const schedule = noiseSchedule({ steps: 2, shift: 1, grid: "diffusers" });
    expect(() => createSampler("unipc", schedule).restore(createSampler("euler", schedule).state())).toThrow(TypeError);
  });
});

describe("guide", () => {
  it("is the unconditional velocity plus the scaled difference", () => {
    const out = new Float32Array(2);
    guide(Float32Array.of(3, 1), Float32Array.of(1, 2), 4, out);
    expect([...out]).toEqual([9, -2]);
    expect(() => guide(out, new Float32Array(3), 1, out)).toThrow(RangeError);
  });
});
