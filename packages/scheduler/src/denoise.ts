// All denoising steps of a job in order, from noise or from a checkpoint: velocity, preview, sampler, progress, checkpoint.
import { MoevieError, limit } from "@moevie/contracts";
import {
  EXPLICIT_GRID,
  SAMPLERS,
  createSampler,
  latentWindows,
  noiseSchedule,
  type LatentWindow,
  type NoiseSchedule,
} from "@moevie/diffusion";
import { decodeCheckpoint, jobFingerprint } from "./checkpoint.ts";
import { denoiseStep } from "./denoise-step.ts";
import { DenoiseLanes } from "./denoise-stream.ts";
import type { BranchContexts } from "./encode.ts";
import type { JobRun } from "./job-run.ts";
import { JobCheckpoints, type Position } from "./job-checkpoints.ts";
import { denoiseProgress } from "./job-progress.ts";
import { gridOf } from "./model-facts.ts";
import { previewPng } from "./preview.ts";
import { inSlices } from "./slices.ts";
import { startLatent, type LatentShape } from "./start-latent.ts";
import { StepRecord } from "./step-record.ts";

export interface Denoised {
  readonly latent: Float32Array;
  /** Keeps the latent as a checkpoint where the last one is of an earlier step. */
  readonly keep: () => Promise<void>;
}

/** The finished latent. `saved` is the store's checkpoint, if any. */
export async function denoise(
  run: JobRun,
  contexts: BranchContexts,
  shape: LatentShape,
  saved: Uint8Array | null,
  traceparent: string,
): Promise<Denoised> {
  const { spec, model, held } = run;
  const schedule = noiseSchedule({
    steps: spec.steps,
    shift: spec.shift ?? model.schedule.shift,
    grid: spec.grid === undefined ? model.schedule.grid : gridOf(spec.grid, "The grid"),
    ...(spec.grid === EXPLICIT_GRID && { sigmas: model.sigmas[spec.quality] ?? [] }),
  });
  // What is saved is of every step: such a job begins at the first one.
  const position = await resume(run, shape, schedule, spec.saveLatents === undefined ? saved : null);
  const record = await StepRecord.begin(run, shape);
  const firstStep = position.step;
  const checkpoints = new JobCheckpoints(run, shape, position);
  let written = Promise.resolve();
  const startMs = performance.now();
  const windows = latentWindows(shape[1], model.windows);
  const laneCount = Math.min(windows.length, limit("windowsInFlightMax"));
  const lanes = new DenoiseLanes(run.peers.router, run.traceparent, run.clock, laneCount);
  try {
    while (position.step < spec.steps) {
      held.signal.throwIfAborted();
      const work = { contexts, lanes, windows, shape, schedule, position, record, traceparent };
      const { preview, seconds } = await advance(run, work);
      const stepSeconds = (performance.now() - startMs) / 1000 / (position.step - firstStep);
      const progress = denoiseProgress(run, position.step, stepSeconds);
      const { timings } = run.stages;
      // No step follows the last one: what the sampler remembers is not needed any more.
      if (position.step === spec.steps) position.sampler = createSampler(samplerOf(spec.sampler), schedule);
      // In order, while the next step computes; what goes wrong with a write stops the job by its signal.
      await written;
      const save = checkpoints.stepped(seconds);
      written = (async () => {
        await held.progress(progress, timings);
        if (preview !== undefined) await held.preview(preview);
        await save?.();
      })();
    }
    await record.finish();
    await written;
  } catch (thrown) {
    await record.discard();
    await written;
    // Between two steps the position is whole: a service that drains hands it on.
    if (held.stopReason?.reason === "DRAINING") await checkpoints.keep();
    throw thrown;
  } finally {
    lanes.close();
  }
  return { latent: position.latent, keep: () => checkpoints.keep() };
}

interface StepWork {
  readonly contexts: BranchContexts;
  readonly lanes: DenoiseLanes;
  readonly windows: readonly LatentWindow[];
  readonly shape: LatentShape;
  readonly schedule: NoiseSchedule;
  readonly position: Position;
  readonly record: StepRecord;
  readonly traceparent: string;
}

interface Advanced {
  /** When one is due. */
  readonly preview: Uint8Array | undefined;
  /** What the step took. */
  readonly seconds: number;
}

/** One step. */
async function advance(run: JobRun, work: StepWork): Promise<Advanced> {
  const { position, schedule, shape, contexts, lanes, windows } = work;
  const { step, latent } = position;
  const startMs = run.clock.monotonicMs();
  const options = { traceparent: work.traceparent, attributes: { "moevie.step": step } };
  const velocity = await run.tracing.span("denoise-step", options, ({ traceparent }) =>
    denoiseStep(run, { latent, shape, windows, timestep: schedule.timesteps[step] ?? 0, contexts, lanes, traceparent }),
  );
  const { previewSteps } = run.settings;
  const due = previewSteps > 0 && run.model.latent.toRgb.length > 0 && (step + 1) % previewSteps === 0;
  const preview = due
    ? previewPng({ latent, velocity, sigma: schedule.sigmas[step] ?? 0, shape }, run.model)
    : undefined;
  // To its end whatever stops the job: the position must be whole.
  await inSlices(latent.length, (start, end) => position.sampler.step(step, latent, velocity, start, end));
  position.step = step + 1;
  await work.record.add(velocity, latent);
  const seconds = (run.clock.monotonicMs() - startMs) / 1000;
  run.metrics.observe("moevie_denoise_step_duration_seconds", {}, seconds);
  run.metrics.add("moevie_denoise_steps_total");
  return { preview, seconds };
}

/** Where the job goes on: at its checkpoint if that is of exactly this job, else at the noise. */
async function resume(
  run: JobRun,
  shape: LatentShape,
  schedule: NoiseSchedule,
  saved: Uint8Array | null,
): Promise<Position> {
  const { spec, model, log } = run;
  const sampler = createSampler(samplerOf(spec.sampler), schedule);
  if (saved !== null) {
    const checkpoint = decodeCheckpoint(saved);
    if (checkpoint?.fingerprint === jobFingerprint(spec, model.digest, shape)) {
      sampler.restore(checkpoint.sampler);
      log.info({ step: checkpoint.step }, "going on from the checkpoint");
      return { step: checkpoint.step, latent: checkpoint.latent, sampler };
    }
    log.warn("the checkpoint is of another build, bundle or job: starting from noise");
  }
  return { step: 0, latent: await startLatent(spec, shape, run.settings.referenceDir), sampler };
}

function samplerOf(name: string): (typeof SAMPLERS)[number] {
  const found = SAMPLERS.find((known) => known === name);
  if (found !== undefined) return found;
  throw new MoevieError("UNSUPPORTED", `The sampler is "${name}"; this build has ${SAMPLERS.join(", ")}.`);
}
