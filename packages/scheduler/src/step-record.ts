// What a job keeps of its steps when its request asks for it: velocities and latents, in a file of the reference folder.
import { ReferenceWriter } from "@moevie/runtime";
import type { JobRun } from "./job-run.ts";
import type { LatentShape } from "./start-latent.ts";

export class StepRecord {
  readonly #writer: ReferenceWriter | undefined;

  private constructor(writer: ReferenceWriter | undefined) {
    this.#writer = writer;
  }

  /** Does nothing for a job that does not ask. Throws UNSUPPORTED where there is no reference folder. */
  static async begin({ spec, settings }: JobRun, latent: LatentShape): Promise<StepRecord> {
    if (spec.saveLatents === undefined) return new StepRecord(undefined);
    const shape = [1, ...latent];
    const tensors = Array.from({ length: spec.steps }, (_, step) => [
      { name: `step.${step}.velocity`, shape },
      { name: `step.${step}.latents`, shape },
    ]);
    return new StepRecord(await ReferenceWriter.create(settings.referenceDir, spec.saveLatents, tensors.flat()));
  }

  /** The next step: the velocity after guidance and the latent after the sampler. */
  async add(velocity: Float32Array, latent: Float32Array): Promise<void> {
    await this.#writer?.append(velocity);
    await this.#writer?.append(latent);
  }

  async finish(): Promise<void> {
    await this.#writer?.finish();
  }

  async discard(): Promise<void> {
    await this.#writer?.discard();
  }
}
