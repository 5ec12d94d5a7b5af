// One evaluation of the denoiser: block by block, graph, gate, experts, next block. Pure but for statistics. Calls interleave:
// while one waits for its shards, another's graph runs in the trunk thread.
import { MoevieError } from "@moevie/contracts";
import { runExpertLayer } from "./expert-layer.ts";
import type { ExpertLayerOptions } from "./expert-layer.ts";
import type { ExpertStatistics } from "./expert-statistics.ts";
import type { TrunkInput } from "./trunk-memory.ts";
import type { Trunk, TrunkCall } from "./trunk.ts";

export interface DenoiseInput extends TrunkInput {
  /** Of two noise levels: the timestep at which they part, where it is not the bundle's. */
  readonly boundary?: number | undefined;
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

export class Denoiser {
  readonly #trunk: Trunk;
  readonly #experts: ExpertLayerOptions;
  readonly #statistics: ExpertStatistics;
  readonly #sizes: { readonly d: number; readonly k: number };

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
    const call = this.#trunk.begin(input);
    try {
      const { velocity, exchangeWaitMs } = await this.#blocks(call, input);
      const totalUs = (performance.now() - startMs) * 1000;
      return { velocity, trunkUs: call.trunkUs, exchangeWaitUs: exchangeWaitMs * 1000, totalUs };
    } finally {
      call.end();
    }
  }

  async #blocks(
    call: TrunkCall,
    { branch, timestep, signal, endMs, traceparent }: DenoiseInput,
  ): Promise<{ velocity: Float32Array; exchangeWaitMs: number }> {
    const { d, k } = this.#sizes;
    await call.entry();
    let exchangeWaitMs = 0;
    for (let layer = 0; layer < this.#trunk.layers; layer++) {
      if (signal.aborted) throw new MoevieError("CANCELLED", "The call was cancelled.");
      const { rows, ids, weights } = await call.block(layer);
      this.#statistics.count(layer, ids, timestep);
      const waitMs = performance.now();
      const work = { layer, branch, rows, choice: { ids, weights, k }, d, signal, endMs, traceparent };
      await runExpertLayer(this.#experts, work, call.moe);
      exchangeWaitMs += performance.now() - waitMs;
    }
    return { velocity: await call.head(), exchangeWaitMs };
  }
}
