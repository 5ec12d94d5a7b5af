// An expert-shard: owns slots on one device, answers exchanges, says what it holds. Knows no job and keeps no row.
import { readFile } from "node:fs/promises";
import { MoevieError } from "@moevie/contracts";
import { openBundle } from "@moevie/bundle";
import type { Bundle } from "@moevie/bundle";
import { serveExchange } from "@moevie/fabric";
import type { ExchangeHandler, Holds } from "@moevie/fabric";
import { PlacementError, parsePlacement, spread } from "@moevie/placement";
import type { Placement } from "@moevie/placement";
import { OnnxThread } from "@moevie/runtime";
import type { RunningService, ServiceContext } from "@moevie/runtime";
import { ExpertCompute } from "./compute.ts";
import { shardConfig } from "./config.ts";
import type { ShardConfig } from "./config.ts";
import { loadSlots, slotsByLayer } from "./load-slots.ts";

/** Resolves once every expert of this shard is loaded and ran. */
export async function startExpertShard(
  context: Pick<ServiceContext, "env" | "log" | "metrics" | "tracing">,
): Promise<RunningService> {
  const config = shardConfig(context.env);
  const bundle = await openBundle(config.bundle);
  const placement = await placementOf(config, bundle);
  const own = placement.shards[config.shardIndex] ?? { slots: [] };
  const slots = slotsByLayer(own);
  const name = `shard-${config.shardIndex}`;
  const thread = OnnxThread.start({ name, device: config.device, intraOpThreads: config.intraOpThreads });
  await loadSlots(bundle, slots, thread);
  const holds: Holds = {
    digest: bundle.digest,
    epoch: placement.epoch,
    slots: own.slots.map(([layer, expert], slot) => ({ layer, expert, slot })),
  };
  context.log.info({ slots: holds.slots.length, epoch: holds.epoch }, "experts loaded");
  const handler = measured(
    new ExpertCompute(thread, slots, bundle.manifest.denoiser.hidden),
    String(config.shardIndex),
    context,
  );
  return {
    serveOn: (listen) => serveExchange({ listen, holds, handlers: { rows: handler } }),
    close: () => thread.close(),
  };
}

function measured(
  compute: ExpertCompute,
  shard: string,
  { metrics, tracing }: Pick<ServiceContext, "metrics" | "tracing">,
): ExchangeHandler {
  metrics.declare("moevie_expert_tokens_total", [{ shard }]);
  metrics.declare("moevie_expert_call_duration_seconds", [{ shard }]);
  return async (request) => {
    const startMs = performance.timeOrigin + performance.now();
    const answer = await compute.answer(request);
    if (request.traceparent !== undefined)
      tracing.record("experts", request.traceparent, startMs, performance.timeOrigin + performance.now(), {
        layer: request.layer,
      });
    metrics.add("moevie_expert_tokens_total", { shard }, request.csr.rowIndex.length);
    metrics.observe("moevie_expert_call_duration_seconds", { shard }, answer.computeUs / 1e6);
    return answer;
  };
}

async function placementOf(config: ShardConfig, bundle: Bundle): Promise<Placement> {
  const { layers, experts } = bundle.manifest.denoiser;
  if (config.placementFile === "") return spread(layers, experts, config.shardCount);
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
