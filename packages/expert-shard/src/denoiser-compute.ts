// Answers exchanges of noise-level experts: a latent through a whole denoiser in the shard's thread, the velocity back. Calls take turns in
// order. Keeps nothing of a call once it is answered.
import { MoevieError } from "@moevie/contracts";
import { graphFor, type Bundle, type NoiseDenoiser } from "@moevie/bundle";
import type { DenoiserRequest, ExchangeAnswer } from "@moevie/fabric";
import type { OnnxThread } from "@moevie/runtime";

/** Name of an expert's graph in the thread. */
function denoiserKey(expert: number): string {
  return `denoiser.${expert}`;
}

/**
 * Loads the graphs of the experts and runs each once, on a latent of one token. Throws BUNDLE_CORRUPT, UNSUPPORTED or
 * OUT_OF_MEMORY.
 */
export async function loadDenoisers(
  bundle: Bundle,
  { graphs, patch }: NoiseDenoiser,
  experts: readonly number[],
  thread: OnnxThread,
  device: string,
): Promise<DenoiserCompute> {
  const { latent, text } = bundle.manifest;
  const compute = new DenoiserCompute(thread);
  const shape = [latent.channels, ...patch] as [number, number, number, number];
  const [channels, frames, height, width] = shape;
  for (const expert of experts) {
    const graph = graphs[expert];
    if (graph === undefined) throw new MoevieError("CONFIG_INVALID", `The bundle has no expert ${expert}.`);
    await thread.load(denoiserKey(expert), await bundle.graph(graphFor(bundle.manifest, graph, device)));
    const context = new Float32Array(text.maxTokens * text.width);
    const unit = { expert, timestep: 500, shape, context, tokens: text.maxTokens };
    const [n, d] = [channels * frames, height * width];
    await compute.answer({
      layer: 0,
      branch: 0,
      attempt: 0,
      n,
      d,
      deadlineMs: 0,
      traceparent: undefined,
      rows: new Float32Array(n * d),
      unit,
    });
  }
  return compute;
}

export class DenoiserCompute {
  readonly #thread: OnnxThread;

  constructor(thread: OnnxThread) {
    this.#thread = thread;
  }

  /** Throws OUT_OF_MEMORY, INTERNAL for a graph that answers another shape than the latent's. */
  async answer({ rows, unit }: DenoiserRequest): Promise<ExchangeAnswer> {
    const { expert, timestep, shape, context, tokens } = unit;
    const arrivedMs = performance.now();
    const { outputs, computeUs } = await this.#thread.timedRun(denoiserKey(expert), {
      latent: { type: "float32", dims: [1, ...shape], data: rows },
      timestep: { type: "float32", dims: [1], data: Float32Array.of(timestep) },
      context: { type: "float32", dims: [1, tokens, context.length / tokens], data: context },
    });
    const velocity = outputs["velocity"];
    if (!(velocity?.data instanceof Float32Array) || velocity.data.length !== rows.length)
      throw new MoevieError("INTERNAL", "The denoiser answered another shape than its latent's.", {
        detail: `[${velocity?.dims.join(", ")}] for [1, ${shape.join(", ")}]`,
      });
    const queueUs = Math.max(0, (performance.now() - arrivedMs) * 1000 - computeUs);
    return { partial: velocity.data, queueUs, computeUs };
  }
}
