// An expert-shard: owns slots on one device, answers exchanges, says what it holds and changes that while it serves. Knows no job and keeps
// no row.
import { readFile } from "node:fs/promises";
import { MoevieError } from "@moevie/contracts";
import { expertsOf, isNoiseDenoiser, openBundle } from "@moevie/bundle";
import type { Bundle } from "@moevie/bundle";
import { serveExchange } from "@moevie/fabric";
import type { DenoiserRequest, ExchangeAnswer, ExchangeHandlers, ExchangeRequest, Holds } from "@moevie/fabric";
import { PlacementError, parsePlacement, spread } from "@moevie/placement";
import type { Placement, ShardPlacement } from "@moevie/placement";
import type { RunningService, ServiceContext } from "@moevie/runtime";
import { ExpertCompute } from "./compute.ts";
import { shardConfig } from "./config.ts";
import type { ShardConfig } from "./config.ts";
import { DenoiserCompute } from "./denoiser-compute.ts";
import { DenoiserRoom } from "./denoiser-room.ts";
import { GraphThreads } from "./held-graph.ts";
import { HeldLayers } from "./held-layers.ts";
import { Operations } from "./operations.ts";
import type { HeldExperts } from "./operations.ts";
import { placeByNoise } from "./place-by-noise.ts";
import { placementService } from "./placement-service.ts";

function freeMemory(): number {
  return process.availableMemory();
}

/** Only the memory of the machine is known here: a device that has its own refuses by itself what does not fit. */
function freeOn(device: string): number {
  return device === "cpu" ? freeMemory() : Infinity;
}

/** Resolves once every expert of this shard is loaded and ran. */
export async function startExpertShard(
  context: Pick<ServiceContext, "env" | "log" | "metrics" | "tracing">,
): Promise<RunningService> {
  const config = shardConfig(context.env);
  const bundle = await openBundle(config.bundle);
  const placement = await placementOf(config, bundle);
  const own = placement.shards[config.shardIndex] ?? { slots: [] };
  const shard = String(config.shardIndex);
  const threads = new GraphThreads({
    name: `shard-${shard}`,
    device: config.device,
    intraOpThreads: config.intraOpThreads,
  });
  const { held, handlers } = await loadExperts(bundle, own, threads, { shard, device: config.device, ...context });
  const holds: Holds = {
    digest: bundle.digest,
    epoch: placement.epoch,
    slots: own.slots.map(([layer, expert], slot) => ({ layer, expert, slot })),
  };
  const freeBytes = (): number => freeOn(config.device);
  const { log, metrics } = context;
  const outcomes = ["done", "rolled_back"].map((outcome) => ({ shard, outcome }));
  metrics.declare("moevie_expert_changes_total", outcomes);
  const operations = new Operations({ held, holds, freeBytes, log, metrics, shard });
  const services = [placementService(operations, expertsOf(bundle.manifest.denoiser), freeMemory)];
  log.info({ slots: holds.slots.length, epoch: holds.epoch }, "experts loaded");
  return {
    serveOn: async (listen) => {
      const server = await serveExchange({
        listen,
        holds,
        handlers,
        services,
        segmentFolder: config.segmentFolder,
      });
      operations.announceTo((changed) => server.announce(changed));
      return server;
    },
    leave: () => operations.leave(config.leaveMs),
    close: () => threads.close(),
  };
}

interface Measuring extends Pick<ServiceContext, "metrics" | "tracing"> {
  readonly shard: string;
  readonly device: string;
}

interface LoadedExperts {
  readonly held: HeldExperts;
  readonly handlers: ExchangeHandlers;
}

/** Loads the shard's experts and answers what serves and changes them. */
async function loadExperts(
  bundle: Bundle,
  own: ShardPlacement,
  threads: GraphThreads,
  measuring: Measuring,
): Promise<LoadedExperts> {
  const { denoiser } = bundle.manifest;
  if (isNoiseDenoiser(denoiser)) {
    const { device } = measuring;
    const room = new DenoiserRoom(denoiser, () => ({ free: freeOn(device), own: process.memoryUsage.rss() }));
    const compute = new DenoiserCompute(bundle, denoiser, { threads, device, room });
    await compute.load(own.slots.map(([, expert]) => expert));
    // Values of a latent that make one token.
    const span = bundle.manifest.latent.channels * denoiser.patch.reduce((product, size) => product * size, 1);
    const answer = (request: DenoiserRequest): Promise<ExchangeAnswer> => compute.answer(request);
    return { held: compute, handlers: { denoiser: measured(answer, ({ n, d }) => (n * d) / span, measuring) } };
  }
  const layers = new HeldLayers(bundle, denoiser.hidden, threads);
  await layers.load(expertsByLayer(own));
  const compute = new ExpertCompute(layers, denoiser.hidden);
  const answer = (request: ExchangeRequest): Promise<ExchangeAnswer> => compute.answer(request);
  return { held: layers, handlers: { rows: measured(answer, ({ csr }) => csr.rowIndex.length, measuring) } };
}

function expertsByLayer({ slots }: ShardPlacement): ReadonlyMap<number, number[]> {
  const byLayer = new Map<number, number[]>();
  for (const [layer, expert] of slots) byLayer.set(layer, [...(byLayer.get(layer) ?? []), expert]);
  return byLayer;
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
