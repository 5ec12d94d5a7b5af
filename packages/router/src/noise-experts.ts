// Noise-level experts: an evaluation goes whole to a shard that holds the expert for its timestep, and the velocity comes back. Only this
// file retries such an exchange.
import { MoevieError, asMoevieError } from "@moevie/contracts";
import type { NoiseDenoiser } from "@moevie/bundle";
import type { DenoiserContext } from "./context-cache.ts";
import type { DenoiseInput, DenoiseOutput } from "./denoise.ts";
import type { Evaluator } from "./evaluator.ts";
import { exchangeWith, type ExpertLayerOptions } from "./expert-layer.ts";
import type { ExpertStatistics } from "./expert-statistics.ts";

/** Attempts per evaluation: the first and a few more, each at a shard that has not failed it yet. */
const ATTEMPTS_MAX = 8;
/** Experts that are whole denoisers are one layer. */
const LAYER = 0;

export class NoiseExperts implements Evaluator {
  readonly #denoiser: NoiseDenoiser;
  readonly #options: ExpertLayerOptions;
  readonly #statistics: ExpertStatistics;
  /** Evaluations each shard works on for this router. */
  readonly #inFlight: Uint32Array;

  constructor(denoiser: NoiseDenoiser, options: ExpertLayerOptions, statistics: ExpertStatistics) {
    this.#denoiser = denoiser;
    this.#options = options;
    this.#statistics = statistics;
    this.#inFlight = new Uint32Array(options.links.sameHost.length);
  }

  /** The experts take the rows as they are. */
  context(_graphs: string, rows: Float32Array, tokens: number): Promise<DenoiserContext> {
    return Promise.resolve({ ctx: rows, tokens, pooled: new Float32Array(0) });
  }

  /** Throws CANCELLED, EXPERT_MISSING when no shard holds the expert in time, or what the last attempt failed with. */
  async run(input: DenoiseInput): Promise<DenoiseOutput> {
    const startMs = performance.now();
    const { from } = this.#denoiser.gate;
    const bounds = input.boundary !== undefined && from.length === 2 ? [input.boundary, 0] : from;
    const expert = bounds.findIndex((bound) => input.timestep >= bound);
    if (expert < 0) throw new MoevieError("INTERNAL", `No expert is for timestep ${input.timestep}.`);
    this.#statistics.count(LAYER, Int32Array.of(expert), input.timestep);
    const avoided = new Set<number>();
    for (let attempt = 0; ; attempt++) {
      const shard = await this.#shardFor(expert, input, avoided);
      try {
        const velocity = await this.#ask(shard, expert, input, attempt);
        const totalUs = (performance.now() - startMs) * 1000;
        return { velocity, trunkUs: 0, exchangeWaitUs: totalUs, hiddenUs: 0, totalUs };
      } catch (thrown) {
        const failure = asMoevieError(thrown);
        // A shard that holds something else by now has said so: nothing failed.
        if (failure.reason !== "STALE_PLACEMENT") {
          this.#options.metrics.add("moevie_exchange_retries_total", { shard: String(shard) });
          avoided.add(shard);
        }
        if (!failure.retryable || input.signal.aborted || attempt + 1 >= ATTEMPTS_MAX) throw failure;
      }
    }
  }

  /** An evaluation goes to a shard by itself: nobody waits for anybody. */
  leave(): void {}

  close(): Promise<void> {
    return Promise.resolve();
  }

  /** The least busy holder, the first of several: so the two branches of a step go to two shards where two hold the expert. */
  async #shardFor(expert: number, { signal, endMs }: DenoiseInput, avoided: Set<number>): Promise<number> {
    const { links } = this.#options;
    for (;;) {
      const holders = links.replicas(LAYER, expert).filter((shard) => !avoided.has(shard));
      const busy = (shard: number): number => this.#inFlight[shard] ?? 0;
      const [first, ...others] = holders;
      if (first !== undefined) {
        const chosen = others.reduce((best, shard) => (busy(shard) < busy(best) ? shard : best), first);
        // Before anything else runs: the other branch chooses next.
        this.#inFlight[chosen]!++;
        return chosen;
      }
      if (avoided.size > 0 && links.replicas(LAYER, expert).length > 0) avoided.clear();
      else await links.waitForChange(signal, endMs, `No connected shard holds the expert for noise level ${expert}.`);
    }
  }

  /** `shard` as chosen by #shardFor, which counts it as busy until this is over. */
  async #ask(shard: number, expert: number, input: DenoiseInput, attempt: number): Promise<Float32Array> {
    const { latent, timestep, context, branch, signal, endMs, traceparent } = input;
    const shape = input.shape as [number, number, number, number];
    const [channels, frames, height, width] = shape;
    const rows = Uint32Array.from({ length: channels * frames }, (_, row) => row);
    const unit = { expert, timestep, shape, context: context.ctx, tokens: context.tokens };
    const asked = { unit, layer: LAYER, branch, attempt, source: latent, d: height * width, rows };
    try {
      const answer = await exchangeWith(this.#options, shard, { ...asked, signal, endMs, traceparent });
      const velocity = answer.partial.slice();
      answer.release();
      return velocity;
    } finally {
      this.#inFlight[shard]!--;
    }
  }
}
