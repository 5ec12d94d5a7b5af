// A running job's checkpoints: written when they are worth it, each beside the next step, and counted with what they cost.
import type { Sampler } from "@moevie/diffusion";
import { encodeCheckpoint, jobFingerprint } from "./checkpoint.ts";
import { CheckpointSpacing } from "./checkpoint-spacing.ts";
import type { JobRun } from "./job-run.ts";
import type { LatentShape } from "./start-latent.ts";

/** A job between two steps. */
export interface Position {
  /** Steps done. */
  step: number;
  readonly latent: Float32Array;
  sampler: Sampler;
}

export class JobCheckpoints {
  readonly #run: JobRun;
  readonly #shape: LatentShape;
  readonly #position: Position;
  readonly #spacing: CheckpointSpacing;
  #keptStep: number;

  constructor(run: JobRun, shape: LatentShape, position: Position) {
    const { checkpointSteps, checkpointShareMax } = run.settings;
    this.#run = run;
    this.#shape = shape;
    this.#position = position;
    this.#spacing = new CheckpointSpacing(run.storePace, { stepsMin: checkpointSteps, shareMax: checkpointShareMax });
    this.#keptStep = position.step;
  }

  /** After a step that took so long: what writes a checkpoint of it, when one is due. */
  stepped(seconds: number): (() => Promise<void>) | undefined {
    this.#spacing.stepped(seconds);
    return this.#spacing.isDue(this.#bytes()) ? this.#begin() : undefined;
  }

  /** Keeps the position, if that is not done. */
  async keep(): Promise<void> {
    if (this.#position.step > this.#keptStep) await this.#begin()();
  }

  /** Of the arrays: what a header adds is nothing beside them. */
  #bytes(): number {
    const { latent, sampler } = this.#position;
    const { estimates, lastLatent } = sampler.state();
    return latent.byteLength * (1 + estimates.length + (lastLatent === undefined ? 0 : 1));
  }

  /** The position as it is now, whatever later steps do to its latent. */
  #begin(): () => Promise<void> {
    const { held, metrics, clock, spec, model, storePace } = this.#run;
    const { step, latent, sampler } = this.#position;
    const startMs = clock.monotonicMs();
    const fingerprint = jobFingerprint(spec, model.digest, this.#shape);
    const parts = encodeCheckpoint({ fingerprint, step, latent: latent.slice(), sampler: sampler.state() });
    const bytes = this.#bytes();
    const copyMs = clock.monotonicMs() - startMs;
    this.#keptStep = step;
    this.#spacing.begun();
    return async () => {
      const writeMs = clock.monotonicMs();
      const isKept = await held.checkpoint(parts);
      const seconds = (copyMs + clock.monotonicMs() - writeMs) / 1000;
      metrics.add("moevie_job_checkpoint_seconds_total", {}, seconds);
      // Failed or not: a place that hangs holds up steps, so it is tried as rarely as one that takes as long.
      storePace.took(bytes, seconds);
      if (!isKept) return;
      metrics.add("moevie_job_checkpoints_total");
      metrics.add("moevie_job_checkpoint_bytes_total", {}, bytes);
    };
  }
}
