// Evaluations of the denoiser that run as one batch, often a batch of one: block by block, graph, gate, experts, next block. Pure but for
// statistics. Batches interleave: while one waits for its shards, another's graph runs in the trunk thread.
import { MoevieError } from "@moevie/contracts";
import { runExpertLayer } from "./expert-layer.ts";
import type { ExpertStatistics } from "./expert-statistics.ts";
import type { ExchangeParts } from "./shard-exchange.ts";
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
  /** An even share of the batch's. */
  readonly trunkUs: number;
  readonly exchangeWaitUs: number;
  /** Of that, what other calls' graphs ran meanwhile. */
  readonly hiddenUs: number;
  readonly totalUs: number;
}

export class Denoiser {
  readonly #trunk: Trunk;
  readonly #experts: ExchangeParts;
  readonly #statistics: ExpertStatistics;
  readonly #sizes: { readonly d: number; readonly k: number };

  constructor(trunk: Trunk, experts: ExchangeParts, statistics: ExpertStatistics, sizes: { d: number; k: number }) {
    this.#trunk = trunk;
    this.#experts = experts;
    this.#statistics = statistics;
    this.#sizes = sizes;
  }

  /**
   * One velocity for each of `inputs`, which have variant, shape, origin and text length in common; the first one's branch, signal, deadline
   * and trace are the batch's. Throws CANCELLED between two blocks, EXPERT_MISSING, DEADLINE, OUT_OF_MEMORY.
   */
  async run(inputs: readonly [DenoiseInput, ...DenoiseInput[]]): Promise<DenoiseOutput[]> {
    const startMs = performance.now();
    const call = this.#trunk.begin(inputs);
    try {
      const { velocities, exchangeWaitMs, hiddenUs } = await this.#blocks(call, inputs);
      const totalUs = (performance.now() - startMs) * 1000;
      const times = { exchangeWaitUs: exchangeWaitMs * 1000, hiddenUs, totalUs };
      return velocities.map((velocity) => ({ velocity, trunkUs: call.trunkUs / inputs.length, ...times }));
    } finally {
      call.end();
    }
  }

  async #blocks(
    call: TrunkCall,
    inputs: readonly [DenoiseInput, ...DenoiseInput[]],
  ): Promise<{ velocities: Float32Array[]; exchangeWaitMs: number; hiddenUs: number }> {
    const { d, k } = this.#sizes;
    const [{ branch, signal, endMs, traceparent }] = inputs;
    await call.entry();
    let exchangeWaitMs = 0;
    let hiddenUs = 0;
    for (let layer = 0; layer < this.#trunk.layers; layer++) {
      if (signal.aborted) throw new MoevieError("CANCELLED", "The call was cancelled.");
      const { rows, ids, weights } = await call.block(layer);
      const each = ids.length / inputs.length;
      inputs.forEach(({ timestep }, at) =>
        this.#statistics.count(layer, ids.subarray(at * each, (at + 1) * each), timestep),
      );
      const waitMs = performance.now();
      const busyUs = this.#trunk.busyUs;
      const work = { layer, branch, rows, choice: { ids, weights, k }, d, signal, endMs, traceparent };
      await runExpertLayer(this.#experts, work, call.moe);
      const waitedMs = performance.now() - waitMs;
      exchangeWaitMs += waitedMs;
      // A graph that ends in this wait may have begun before it.
      hiddenUs += Math.min(waitedMs * 1000, this.#trunk.busyUs - busyUs);
    }
    return { velocities: await call.head(), exchangeWaitMs, hiddenUs };
  }
}
