// An expert-shard: owns slots on one device, answers exchanges, says what it holds. Knows no job and keeps no row.
import { readFile } from "node:fs/promises";
import { MoevieError } from "@moevie/contracts";
import { expertsOf, isNoiseDenoiser, openBundle } from "@moevie/bundle";
import type { Bundle } from "@moevie/bundle";
import { serveExchange } from "@moevie/fabric";
import type { DenoiserRequest, ExchangeAnswer, ExchangeHandlers, ExchangeRequest, Holds } from "@moevie/fabric";
import { PlacementError, parsePlacement, spread } from "@moevie/placement";
import type { Placement, ShardPlacement } from "@moevie/placement";
import { OnnxThread } from "@moevie/runtime";
import type { RunningService, ServiceContext } from "@moevie/runtime";
import { ExpertCompute } from "./compute.ts";
import { shardConfig } from "./config.ts";
import type { ShardConfig } from "./config.ts";
import { loadDenoisers } from "./denoiser-compute.ts";
import { loadSlots, slotsByLayer } from "./load-slots.ts";
import { placeByNoise } from "./place-by-noise.ts";

/** Resolves once every expert of this shard is loaded and ran. */
export async function startExpertShard(
  context: Pick<ServiceContext, "env" | "log" | "metrics" | "tracing">,
): Promise<RunningService> {
  const config = shardConfig(context.env);
  const bundle = await openBundle(config.bundle);
  const placement = await placementOf(config, bundle);
  const own = placement.shards[config.shardIndex] ?? { slots: [] };
  const name = `shard-${config.shardIndex}`;
  const thread = OnnxThread.start({ name, device: config.device, intraOpThreads: config.intraOpThreads });
  const measuring = { shard: String(config.shardIndex), device: config.device, ...context };
  const handlers = await loadExperts(bundle, own, thread, measuring);
  const holds: Holds = {
    digest: bundle.digest,
    epoch: placement.epoch,
    slots: own.slots.map(([layer, expert], slot) => ({ layer, expert, slot })),
  };
  context.log.info({ slots: holds.slots.length, epoch: holds.epoch }, "experts loaded");
  return {
    serveOn: (listen) => serveExchange({ listen, holds, handlers }),
    close: () => thread.close(),
  };
}

interface Measuring extends Pick<ServiceContext, "metrics" | "tracing"> {
  readonly shard: string;
  readonly device: string;
}

/** Puts the shard's experts into `thread` and answers what serves them. */
async function loadExperts(
  bundle: Bundle,
  own: ShardPlacement,
  thread: OnnxThread,
  measuring: Measuring,
): Promise<ExchangeHandlers> {
  const { denoiser } = bundle.manifest;
  if (isNoiseDenoiser(denoiser)) {
    const experts = own.slots.map(([, expert]) => expert);
    const compute = await loadDenoisers(bundle, denoiser, experts, thread, measuring.device);
    // Values of a latent that make one token.
    const span = bundle.manifest.latent.channels * denoiser.patch.reduce((product, size) => product * size, 1);
    const answer = (request: DenoiserRequest): Promise<ExchangeAnswer> => compute.answer(request);
    return { denoiser: measured(answer, ({ n, d }) => (n * d) / span, measuring) };
  }
  const slots = slotsByLayer(own);
  await loadSlots(bundle, denoiser.hidden, slots, thread);
  const compute = new ExpertCompute(thread, slots, denoiser.hidden);
  const answer = (request: ExchangeRequest): Promise<ExchangeAnswer> => compute.answer(request);
  return { rows: measured(answer, ({ csr }) => csr.rowIndex.length, measuring) };
}

/** `handler`, counted, timed and traced; `tokens` are those a request has the experts work on. */
function measured<R extends ExchangeRequest | DenoiserRequest>(
  handler: (request: R) => Promise<ExchangeAnswer>,
  tokens: (request: R) => number,
  { shard, metrics, tracing }: Measuring,
): (request: R) => Promise<ExchangeAnswer> {
  metrics.declare("moevie_expert_tokens_total", [{ shard }]);
  metrics.declare("moevie_expert_call_duration_seconds", [{ shard }]);
  return async (request) => {
    const startMs = performance.timeOrigin + performance.now();
    const answer = await handler(request);
    if (request.traceparent !== undefined)
      tracing.record("experts", request.traceparent, startMs, performance.timeOrigin + performance.now(), {
        layer: request.layer,
      });
    metrics.add("moevie_expert_tokens_total", { shard }, tokens(request));
    metrics.observe("moevie_expert_call_duration_seconds", { shard }, answer.computeUs / 1e6);
    return answer;
  };
}

async function placementOf(config: ShardConfig, bundle: Bundle): Promise<Placement> {
  const { denoiser } = bundle.manifest;
  const { layers, experts } = expertsOf(denoiser);
  if (config.placementFile === "")
    return isNoiseDenoiser(denoiser)
      ? placeByNoise(bundle.manifest, denoiser, config.shardCount)
      : spread(layers, experts, config.shardCount);
  const name = `MOEVIE_PLACEMENT_FILE is "${config.placementFile}"`;
  let placement: Placement;
  try {
    placement = parsePlacement(JSON.parse(await readFile(config.placementFile, "utf8")), { layers, experts });
  } catch (cause) {
    const why =
      cause instanceof PlacementError || cause instanceof SyntaxError ? cause.message : "the file cannot be read";
    throw new MoevieError("CONFIG_INVALID", `${name}; ${why}`, { cause });
  }
  if (placement.shards.length !== config.shardCount) {
    throw new MoevieError(
      "CONFIG_INVALID",
      `${name}; it has ${placement.shards.length} shards, MOEVIE_SHARD_COUNT is ${config.shardCount}`,
    );
  }
  return placement;
}
