// One evaluation of the denoiser: block by block, graph, gate, experts, next block. Pure but for statistics. Calls interleave:
// while one waits for its shards, another's graph runs in the trunk thread.
import { MoevieError } from "@moevie/contracts";
import { BufferPool } from "@moevie/fabric";
import type { DenoiserContext } from "./context-cache.ts";
import { runExpertLayer } from "./expert-layer.ts";
import type { ExpertLayerOptions } from "./expert-layer.ts";
import type { ExpertStatistics } from "./expert-statistics.ts";
import type { Trunk, TrunkCall } from "./trunk.ts";

export interface DenoiseInput {
  readonly latent: Float32Array;
  /** [channels, frames, height, width]. */
  readonly shape: readonly number[];
  readonly timestep: number;
  readonly context: DenoiserContext;
  readonly branch: number;
  readonly signal: AbortSignal;
  /** performance.now() by which the call must be done. */
  readonly endMs: number;
  readonly traceparent: string | undefined;
}

export interface DenoiseOutput {
  readonly velocity: Float32Array;
  readonly trunkUs: number;
  readonly exchangeWaitUs: number;
  readonly totalUs: number;
}

const POOL_BYTES_MAX = 67_108_864;

export class Denoiser {
  readonly #trunk: Trunk;
  readonly #experts: ExpertLayerOptions;
  readonly #statistics: ExpertStatistics;
  readonly #sizes: { readonly d: number; readonly k: number };
  readonly #pool = BufferPool.shared(POOL_BYTES_MAX);

  constructor(
    trunk: Trunk,
    experts: ExpertLayerOptions,
    statistics: ExpertStatistics,
    sizes: { d: number; k: number },
  ) {
    this.#trunk = trunk;
    this.#experts = experts;
    this.#statistics = statistics;
    this.#sizes = sizes;
  }

  /** Throws CANCELLED between two blocks, EXPERT_MISSING, DEADLINE, OUT_OF_MEMORY. */
  async run(input: DenoiseInput): Promise<DenoiseOutput> {
    const startMs = performance.now();
    const call = this.#trunk.begin();
    const buffers: SharedArrayBuffer[] = [];
    try {
      const { velocity, exchangeWaitMs } = await this.#blocks(call, input, buffers);
      const totalUs = (performance.now() - startMs) * 1000;
      return { velocity, trunkUs: call.trunkUs, exchangeWaitUs: exchangeWaitMs * 1000, totalUs };
    } finally {
      await call.end();
      for (const buffer of buffers) this.#pool.give(buffer);
    }
  }

  async #blocks(
    call: TrunkCall,
    input: DenoiseInput,
    buffers: SharedArrayBuffer[],
  ): Promise<{ velocity: Float32Array; exchangeWaitMs: number }> {
    const { d, k } = this.#sizes;
    const { context, branch, signal, endMs, traceparent } = input;
    const latent = { type: "float32", dims: [1, ...input.shape], data: input.latent } as const;
    await call.entry(latent, input.timestep, context);
    let moe: Float32Array | undefined;
    let exchangeWaitMs = 0;
    for (let layer = 0; layer < this.#trunk.layers; layer++) {
      if (signal.aborted) throw new MoevieError("CANCELLED", "The call was cancelled.");
      const { rows, ids, weights } = await call.block(layer, context, moe, d);
      this.#statistics.count(layer, ids);
      if (moe === undefined) {
        const buffer = this.#pool.take(rows.byteLength);
        buffers.push(buffer);
        moe = new Float32Array(buffer, 0, rows.length);
      }
      const waitMs = performance.now();
      const work = { layer, branch, rows, choice: { ids, weights, k }, d, signal, endMs, traceparent };
      await runExpertLayer(this.#experts, work, moe);
      exchangeWaitMs += performance.now() - waitMs;
    }
    if (moe === undefined) throw new MoevieError("INTERNAL", "The model has no layers.");
    return { velocity: await call.head(latent, moe, d), exchangeWaitMs };
  }
}
