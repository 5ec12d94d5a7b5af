// Starts the gateway: opens the store and answers the public API. Holds no weights: the bundle tells defaults only.
import { BundleError, isNoiseDenoiser, openBundle, type Manifest } from "@moevie/bundle";
import { MoevieError } from "@moevie/contracts";
import { NOISE_GRIDS, SAMPLERS } from "@moevie/diffusion";
import { JOB_STATE_KINDS, countEnd, declareEnds, openJobStore } from "@moevie/job-store";
import { pause, runService } from "@moevie/runtime";
import { publicServices } from "./api.ts";
import { gatewayConfig } from "./config.ts";
import { REFUSALS } from "./create-video.ts";
import type { Gateway } from "./gateway.ts";
import { gatewayHttp } from "./http.ts";
import { OpenCalls } from "./open-calls.ts";

/** Pause between two counts of the jobs for moevie_jobs_in_state. */
const COUNT_MS = 1000;

runService({
  name: "gateway",
  async start({ env, log, metrics, tracing, signal }) {
    const config = gatewayConfig(env);
    const { manifest, digest } = await openBundle(config.bundle).catch((thrown: unknown) => {
      if (thrown instanceof BundleError) throw new MoevieError("BUNDLE_CORRUPT", thrown.message, { cause: thrown });
      throw thrown;
    });
    const store = await openJobStore(config.store, {
      onEnded: (ended) => countEnd(metrics, ended),
      onNotice: (line) => log.warn(line),
    });
    declareEnds(metrics);
    const model = {
      name: manifest.name,
      variants: manifest.variants,
      sampler: manifest.sampler,
      samplers: SAMPLERS,
      ...manifest.schedule,
      grids: NOISE_GRIDS,
      boundary: boundaryOf(manifest),
      frameRate: manifest.frameRate,
      temporalStride: manifest.latent.temporalStride,
      negativePrompt: manifest.negativePrompt ?? "",
      draws: manifest.draws,
      referenceAllowed: config.referenceAllowed,
      trained: {
        seconds: Math.floor(manifest.modelFrames / manifest.frameRate),
        width: manifest.width,
        height: manifest.height,
      },
    };
    const gateway: Gateway = {
      store,
      model,
      bundleDigest: digest,
      metrics,
      tracing,
      log,
      logPrompts: config.logPrompts,
      calls: new OpenCalls(),
      signal,
    };
    metrics.declare("moevie_jobs_submitted_total");
    metrics.declare(
      "moevie_jobs_refused_total",
      REFUSALS.map((reason) => ({ reason })),
    );
    const counting = countJobs(gateway);
    return {
      grpc: publicServices(gateway),
      http: gatewayHttp(gateway, config.metricsPeers),
      async close() {
        await counting;
        await store.close();
      },
    };
  },
});

/** Keeps the gauge of jobs by state, until the drain. */
async function countJobs({ store, metrics, signal, log }: Gateway): Promise<void> {
  while (!signal.aborted) {
    try {
      const counts = await store.counts();
      for (const state of JOB_STATE_KINDS) metrics.set("moevie_jobs_in_state", { state }, counts[state]);
      metrics.set("moevie_jobs_dead", {}, await store.deadCount());
      await pause(COUNT_MS, signal);
    } catch (thrown) {
      if (!signal.aborted) log.warn({ err: thrown }, "counting jobs failed");
      if (!signal.aborted) await pause(COUNT_MS, signal).catch(() => undefined);
    }
  }
}

/** The timestep at which two noise levels part; undefined for a model of one. */
function boundaryOf({ denoiser }: Manifest): number | undefined {
  return isNoiseDenoiser(denoiser) && denoiser.gate.from.length === 2 ? denoiser.gate.from[0] : undefined;
}
