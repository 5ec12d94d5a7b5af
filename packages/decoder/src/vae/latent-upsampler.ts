// The stage before the decoder: a latent frame to one of more rows and columns, by a trained graph. Each frame by itself.
import { MoevieError } from "@moevie/contracts";
import type { OnnxThread, TensorView } from "@moevie/runtime";

const GRAPH = "latent-upsampler";

export class LatentUpsampler {
  readonly #thread: OnnxThread;

  private constructor(thread: OnnxThread) {
    this.#thread = thread;
  }

  /** Loads the graph on `thread`. Throws BUNDLE_CORRUPT, UNSUPPORTED, DEVICE_MISSING, OUT_OF_MEMORY. */
  static async load(thread: OnnxThread, graph: Uint8Array): Promise<LatentUpsampler> {
    await thread.load(GRAPH, graph);
    return new LatentUpsampler(thread);
  }

  /** [1, C, h, w] to [1, C, scale * h, scale * w], both normalised. */
  async finer(z: TensorView): Promise<{ readonly fine: TensorView; readonly computeUs: number }> {
    const { outputs, computeUs } = await this.#thread.timedRun(GRAPH, { z });
    const fine = outputs["fine"];
    if (fine === undefined)
      throw new MoevieError("BUNDLE_CORRUPT", "The upsampler graph answered another shape than its bundle says.", {
        detail: `${Object.keys(outputs).join(", ")}, expected fine`,
      });
    return { fine, computeUs };
  }
}
