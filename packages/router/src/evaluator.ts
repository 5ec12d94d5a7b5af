// What evaluates the denoiser of a bundle, whichever kind its experts are of.
import { isNoiseDenoiser, type Bundle } from "@moevie/bundle";
import { pause } from "@moevie/runtime";
import { Batches } from "./batches.ts";
import type { RouterConfig } from "./config.ts";
import type { DenoiserContext } from "./context-cache.ts";
import { Denoiser, type DenoiseInput, type DenoiseOutput } from "./denoise.ts";
import type { ExpertStatistics } from "./expert-statistics.ts";
import { NoiseExperts } from "./noise-experts.ts";
import { Room } from "./room.ts";
import type { ExchangeParts } from "./shard-exchange.ts";
import { loadTrunk } from "./trunk.ts";

export interface Evaluator {
  /** Rows [tokens, width] of a text to what evaluations of the variant whose graphs begin with `graphs` take. */
  context(graphs: string, rows: Float32Array, tokens: number, width: number): Promise<DenoiserContext>;
  /** `caller` stands for the stream that asks, one evaluation at a time. */
  run(input: DenoiseInput, caller: object): Promise<DenoiseOutput>;
  /** The caller asks for nothing more. */
  leave(caller: object): void;
  close(): Promise<void>;
}

/** Loads what the router itself runs. Throws BUNDLE_CORRUPT, UNSUPPORTED, DEVICE_MISSING or OUT_OF_MEMORY. */
export async function openEvaluator(
  bundle: Bundle,
  config: Pick<RouterConfig, "device" | "intraOpThreads" | "batchMax" | "branchRowsMin">,
  experts: ExchangeParts,
  statistics: ExpertStatistics,
): Promise<Evaluator> {
  const { denoiser } = bundle.manifest;
  if (isNoiseDenoiser(denoiser)) return new NoiseExperts(denoiser, experts, statistics);
  const graphs = [...new Set(Object.values(bundle.manifest.variants).map((variant) => variant.graphs))];
  const trunk = await loadTrunk(bundle, { graphs, layers: denoiser.layers }, config.device, config.intraOpThreads);
  const tokens = new Denoiser(trunk, experts, statistics, { d: denoiser.hidden, k: denoiser.topK });
  const cells = denoiser.patch.reduce((product, size) => product * size, 1);
  const rowsOf = ([, ...sizes]: readonly number[]): number =>
    sizes.reduce((product, size) => product * size, 1) / cells;
  // Only the memory of the machine is known here: a device that has its own refuses what does not fit by itself.
  const free = config.device === "cpu" ? (): number => process.availableMemory() : (): number => Infinity;
  const room = new Room(denoiser.hidden, () => ({ free: free(), own: process.memoryUsage.rss() }));
  const batches = new Batches({
    run: (inputs) => tokens.run(inputs),
    rowsOf,
    batchMax: ({ shape }) => Math.max(1, Math.min(config.batchMax, room.evaluations(rowsOf(shape)))),
    branchRowsMin: config.branchRowsMin,
    pause,
    metrics: experts.metrics,
  });
  return {
    context: (prefix, rows, count, width) => trunk.context(prefix, rows, count, width),
    run: (input, caller) => room.within(rowsOf(input.shape), () => batches.run(input, caller)),
    leave: (caller) => batches.leave(caller),
    close: () => trunk.close(),
  };
}
