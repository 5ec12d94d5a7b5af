// How far a job is and how long it will take: the stages' shares of the percentage and the estimate. Pure.
import type { JobProgress } from "@moevie/job-store";
import type { JobRun } from "./job-run.ts";

/** Percent at which each stage begins. */
const DENOISE_FROM = 2;
const DECODE_FROM = 85;
const COMMIT_FROM = 99;

export function encodeProgress(run: JobRun): JobProgress {
  return { stage: "encode", step: 0, stepCount: run.spec.steps, percent: 0 };
}

/** After `step` steps of `stepSeconds` each. */
export function denoiseProgress(run: JobRun, step: number, stepSeconds: number): JobProgress {
  const { steps } = run.spec;
  const decodeSeconds = (run.pace.secondsPerFrame ?? 0) * clipFrames(run);
  return {
    stage: "denoise",
    step,
    stepCount: steps,
    percent: DENOISE_FROM + ((DECODE_FROM - DENOISE_FROM) * step) / steps,
    remainingSeconds: (steps - step) * stepSeconds + decodeSeconds,
  };
}

/** After `frames` frames in `seconds`. */
export function decodeProgress(run: JobRun, frames: number, seconds: number): JobProgress {
  const { steps } = run.spec;
  const total = clipFrames(run);
  const percent = DECODE_FROM + ((COMMIT_FROM - DECODE_FROM) * Math.min(frames, total)) / total;
  const secondsPerFrame = frames > 0 ? seconds / frames : run.pace.secondsPerFrame;
  const remaining =
    secondsPerFrame === undefined ? {} : { remainingSeconds: Math.max(0, total - frames) * secondsPerFrame };
  return { stage: "decode", step: steps, stepCount: steps, percent, ...remaining };
}

export function commitProgress(run: JobRun): JobProgress {
  const { steps } = run.spec;
  return { stage: "commit", step: steps, stepCount: steps, percent: COMMIT_FROM, remainingSeconds: 0 };
}

/** Frames of the finished clip: exactly seconds times fps. */
export function clipFrames(run: JobRun): number {
  return Math.max(1, Math.round(run.spec.seconds * run.spec.fps));
}
