// Noise-level experts: an evaluation goes whole to a shard that holds the expert for its timestep, and the velocity comes back. Only this
// file retries such an exchange.
import { MoevieError, asMoevieError } from "@moevie/contracts";
import type { NoiseDenoiser } from "@moevie/bundle";
import type { DenoiserUnit } from "@moevie/fabric";
import type { DenoiserContext } from "./context-cache.ts";
import type { DenoiseInput, DenoiseOutput } from "./denoise.ts";
import type { Evaluator } from "./evaluator.ts";
import type { ExpertStatistics } from "./expert-statistics.ts";
import { hedged } from "./hedge.ts";
import { exchangeWith, kindOf, type ExchangeParts } from "./shard-exchange.ts";

/** Rounds per evaluation: the first and a few more, each at a shard that has not failed it yet. */
const ROUNDS_MAX = 8;
/** Experts that are whole denoisers are one layer. */
const LAYER = 0;

export class NoiseExperts implements Evaluator {
  readonly #denoiser: NoiseDenoiser;
  readonly #parts: ExchangeParts;
  readonly #statistics: ExpertStatistics;
  /** Evaluations each shard works on for this router. */
  readonly #inFlight: Uint32Array;

  constructor(denoiser: NoiseDenoiser, parts: ExchangeParts, statistics: ExpertStatistics) {
    this.#denoiser = denoiser;
    this.#parts = parts;
    this.#statistics = statistics;
    this.#inFlight = new Uint32Array(parts.links.sameHost.length);
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
    const attempts = { next: 0 };
    for (let round = 1; ; round++) {
      const shard = await this.#shardFor(expert, input, avoided);
      try {
        const velocity = await this.#askFirst(shard, expert, input, attempts);
        const totalUs = (performance.now() - startMs) * 1000;
        return { velocity, trunkUs: 0, exchangeWaitUs: totalUs, hiddenUs: 0, totalUs };
      } catch (thrown) {
        const failure = asMoevieError(thrown);
        // A shard that holds something else by now has said so: nothing failed.
        if (failure.reason !== "STALE_PLACEMENT") {
          this.#parts.metrics.add("moevie_exchange_retries_total", { shard: String(shard) });
          avoided.add(shard);
        }
        if (!failure.retryable || input.signal.aborted || round >= ROUNDS_MAX) throw failure;
      }
    }
  }

  /** An evaluation goes to a shard by itself: nobody waits for anybody. */
  leave(): void {}

  close(): Promise<void> {
    return Promise.resolve();
  }

  /** A holder to ask: the least busy of those that were not late lately, waiting for one to appear where there is none. */
  async #shardFor(expert: number, { signal, endMs }: DenoiseInput, avoided: Set<number>): Promise<number> {
    const { donors, links } = this.#parts;
    for (;;) {
      const chosen = this.#take(links.holders(LAYER, avoided)[expert] ?? []);
      if (chosen !== undefined) return chosen;
      if (avoided.size > 0 && links.replicas(LAYER, expert).length > 0) avoided.clear();
      else await donors.wait(signal, endMs, LAYER, `No connected shard holds the expert for noise level ${expert}.`);
    }
  }

  /** The least busy of `holders`, the first of several: so the two branches of a step go to two shards where two hold the expert. */
  #take(holders: readonly number[]): number | undefined {
    const busy = (shard: number): number => this.#inFlight[shard] ?? 0;
    const [first, ...others] = this.#parts.hedges.inTime(holders, performance.now());
    if (first === undefined) return undefined;
    const chosen = others.reduce((best, shard) => (busy(shard) < busy(best) ? shard : best), first);
    // Before anything else runs: the other branch chooses next.
    this.#inFlight[chosen]!++;
    return chosen;
  }

  /** `shard` as chosen by #shardFor; when it is late another holder too, if there is one. */
  async #askFirst(
    shard: number,
    expert: number,
    input: DenoiseInput,
    attempts: { next: number },
  ): Promise<Float32Array> {
    const { hedges, links, metrics } = this.#parts;
    const { answer, won } = await hedged({
      first: (signal) => this.#ask(shard, expert, { ...input, signal }, attempts.next++),
      second: (signal) => {
        const others = links.replicas(LAYER, expert).filter((other) => other !== shard);
        const other = others.length > 0 && hedges.take() ? this.#take(others) : undefined;
        return other === undefined ? undefined : this.#ask(other, expert, { ...input, signal }, attempts.next++);
      },
      lateAfterMs: hedges.lateAfterMs(shard, kindOf({ unit: unitOf(expert, input) })),
      signal: input.signal,
      discard: () => undefined,
    });
    if (won === "second") hedges.late(shard, performance.now());
    if (won !== undefined)
      metrics.add("moevie_exchange_hedges_total", { shard: String(shard), outcome: won === "second" ? "won" : "lost" });
    return answer;
  }

  /** `shard` as chosen by #take, which counts it as busy until this is over. */
  async #ask(shard: number, expert: number, input: DenoiseInput, attempt: number): Promise<Float32Array> {
    const { latent, branch, signal, endMs, traceparent } = input;
    const unit = unitOf(expert, input);
    const [channels, frames, height, width] = unit.shape;
    const rows = Uint32Array.from({ length: channels * frames }, (_, row) => row);
    const asked = { unit, layer: LAYER, branch, attempt, source: latent, d: height * width, rows };
    try {
      const answer = await exchangeWith(this.#parts, shard, { ...asked, signal, endMs, traceparent });
      const velocity = answer.partial.slice();
      answer.release();
      return velocity;
    } finally {
      this.#inFlight[shard]!--;
    }
  }
}

function unitOf(expert: number, { timestep, shape, context }: DenoiseInput): DenoiserUnit {
  const [channels = 0, frames = 0, height = 0, width = 0] = shape;
  return { expert, timestep, shape: [channels, frames, height, width], context: context.ctx, tokens: context.tokens };
}
