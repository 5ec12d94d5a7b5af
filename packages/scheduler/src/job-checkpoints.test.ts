// A place of checkpoints that hangs and fails costs steps no more than one that takes as long.
import { createSampler, noiseSchedule } from "@moevie/diffusion";
import { expect, test } from "vitest";
import { StorePace } from "./checkpoint-spacing.ts";
import { JobCheckpoints } from "./job-checkpoints.ts";
import type { JobRun } from "./job-run.ts";

const [HANGS_S, STEP_S, SHARE] = [120, 1, 0.01];

test("writes that hang and fail are tried as rarely as their time says, once two of them did", async () => {
  let nowMs = 0;
  const run = {
    settings: { checkpointSteps: 1, checkpointShareMax: SHARE },
    storePace: new StorePace(),
    spec: {},
    model: { digest: "d" },
    clock: { monotonicMs: () => nowMs },
    metrics: { add: () => undefined },
    held: {
      checkpoint: () => {
        nowMs += HANGS_S * 1000;
        return Promise.resolve(false);
      },
    },
  } as unknown as JobRun;
  const schedule = noiseSchedule({ steps: 4, shift: 1, grid: "diffusers" });
  const position = { step: 0, latent: new Float32Array(4), sampler: createSampler("unipc", schedule) };
  const checkpoints = new JobCheckpoints(run, [1, 1, 2, 2], position);
  /** Steps until one is tried. */
  const stepsToNext = async (): Promise<number> => {
    for (let steps = 1; ; steps++) {
      const save = checkpoints.stepped(STEP_S);
      if (save === undefined) continue;
      await save();
      return steps;
    }
  };
  // The first is tried by what is assumed, the second because one alone may be a stall.
  expect(await stepsToNext()).toBeLessThan(10);
  expect(await stepsToNext()).toBeLessThan(10);
  expect(await stepsToNext()).toBe(HANGS_S / SHARE / STEP_S);
});
