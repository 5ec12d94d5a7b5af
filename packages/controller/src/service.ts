// A controller: watches loads and shards, and while it leads, moves experts where that is worth it. Nothing that serves waits for it, and
// its end changes nothing: the next one finds the placement it had decided on, and what shards hold.
import { randomUUID } from "node:crypto";
import { mkdir } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { MoevieError, limit } from "@moevie/contracts";
import { expertsOf, isNoiseDenoiser, openBundle } from "@moevie/bundle";
import { pause, systemClock } from "@moevie/runtime";
import type { RunningService, ServiceContext } from "@moevie/runtime";
import { ClusterWatch } from "./cluster-view.ts";
import { controllerConfig } from "./config.ts";
import type { ControllerConfig } from "./config.ts";
import { FileLease } from "./file-lease.ts";
import { ConfigMapKeeper, FileKeeper } from "./kept-placement.ts";
import type { PlacementKeeper } from "./kept-placement.ts";
import { KubernetesLease } from "./kubernetes-lease.ts";
import { KubernetesObjects } from "./kubernetes-objects.ts";
import { Leader } from "./leader.ts";
import { Leadership } from "./lease.ts";
import type { Lease } from "./lease.ts";
import { LoadWindow } from "./load-window.ts";
import { Refusals } from "./refusals.ts";

/** Address under which the HTTP edge shows what the controller thinks and does. */
const PLAN_PATH = "/plan";

type ControllerContext = Pick<ServiceContext, "env" | "log" | "metrics" | "signal">;

/** Resolves at once: a controller is ready without anybody to control. */
export async function startController(context: ControllerContext): Promise<RunningService> {
  const config = controllerConfig(context.env);
  const bundle = await openBundle(config.bundle);
  const { denoiser } = bundle.manifest;
  const { layers, experts } = expertsOf(denoiser);
  checkSlots(config, experts);
  const { lease, keeper } = await openKept(config.kept);
  const loads = new LoadWindow(layers, experts, config.halfLifeMs);
  const { log, metrics, signal } = context;
  const watch = new ClusterWatch(
    {
      shards: config.shards,
      routers: config.routers,
      digest: bundle.digest,
      goneMs: limit("silenceMsMax"),
      loads,
      log,
      onForgotten: (shard) => metrics.forget("shard", String(shard)),
    },
    performance.now(),
  );
  metrics.set("moevie_controller_leader", {}, 0);
  const refusals = new Refusals(!isNoiseDenoiser(denoiser));
  const leadership = new Leadership({
    lease,
    leaseMs: limit("leaseMs"),
    renewMs: limit("leaseRenewMs"),
    now: () => performance.now(),
    log,
    onChange: (leads) => metrics.set("moevie_controller_leader", {}, leads ? 1 : 0),
  });
  const model = { layers, experts };
  const leader = new Leader({ config, keeper, leadership, loads, refusals, watch, model, log, metrics });
  const ended = run(leader, config.planMs, signal);
  return {
    http: (request, response) => {
      if (request.url !== PLAN_PATH) return false;
      response.setHeader("content-type", "application/json");
      response.end(JSON.stringify(leader.status(performance.now())));
      return true;
    },
    close: async () => {
      await ended;
      watch.close();
    },
  };
}

async function openKept(kept: ControllerConfig["kept"]): Promise<{ lease: Lease; keeper: PlacementKeeper }> {
  const leaseMs = limit("leaseMs");
  if ("folder" in kept) {
    const folder = join(kept.folder, "controller");
    await mkdir(folder, { recursive: true });
    return { lease: new FileLease(folder, leaseMs), keeper: new FileKeeper(folder) };
  }
  const objects = await KubernetesObjects.connect(kept.kubeconfig);
  // In a pod the host's name is the pod's; what follows is this process's alone.
  const holder = `${hostname()}_${randomUUID()}`;
  const lease = new KubernetesLease({ objects, at: kept.lease, holder, leaseMs, wallMs: () => systemClock.wallMs() });
  return { lease, keeper: new ConfigMapKeeper(objects, kept.configMap) };
}

function checkSlots({ slots, shards }: ControllerConfig, experts: number): void {
  if (slots === 0 || (slots >= experts && slots <= experts * shards.length)) return;
  const allowed = `0, or ${experts} to ${experts * shards.length}: each of ${experts} experts at least once, and once a shard at most`;
  throw new MoevieError("CONFIG_INVALID", `MOEVIE_SLOTS is "${slots}"; allowed: ${allowed}`);
}

/** Turn after turn until the service drains. */
async function run(leader: Leader, planMs: number, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    await leader.turn(signal);
    await pause(Math.min(planMs, limit("leaseRenewMs")), signal).catch(() => undefined);
  }
  await leader.stepDown();
}
