// Starts the scheduler: takes jobs from the store and coordinates them through their steps. Holds latents, never weights.
import { randomUUID } from "node:crypto";
import { BundleError, openBundle } from "@moevie/bundle";
import { MoevieError, limit } from "@moevie/contracts";
import { countEnd, openJobStore } from "@moevie/job-store";
import { GrpcPeer, runService, systemClock } from "@moevie/runtime";
import { readSchedulerConfig, retentionOf } from "./config.ts";
import { modelFacts } from "./model-facts.ts";
import { startScheduler } from "./service.ts";

runService({
  name: "scheduler",
  async start({ env, log, metrics, tracing, signal }) {
    const config = readSchedulerConfig(env);
    const bundle = await openBundle(config.MOEVIE_BUNDLE).catch((thrown: unknown) => {
      if (thrown instanceof BundleError) throw new MoevieError("BUNDLE_CORRUPT", thrown.message, { cause: thrown });
      throw thrown;
    });
    const model = modelFacts(bundle.manifest, bundle.digest);
    const store = await openJobStore(config, {
      retention: retentionOf(config),
      backupMs: config.MOEVIE_BACKUP_MINUTES * 60_000,
      onEnded: (ended) => countEnd(metrics, ended),
      onNotice: (line) => log.warn(line),
    });
    const peers = {
      textEncoder: new GrpcPeer("moevie.v1.TextEncoderService", config.MOEVIE_TEXT_ENCODER),
      router: new GrpcPeer("moevie.v1.DenoiseService", config.MOEVIE_ROUTER),
      decoder: new GrpcPeer("moevie.v1.DecodeService", config.MOEVIE_DECODER),
    };
    const wait = { signal, timeoutMs: limit("readyWaitMsMax") };
    await Promise.all(Object.values(peers).map((peer) => peer.waitReady(wait)));
    const settings = {
      owner: config.MOEVIE_SCHEDULER_NAME || randomUUID(),
      jobsRunningMax: config.MOEVIE_JOBS_RUNNING_MAX,
      checkpointSteps: config.MOEVIE_CHECKPOINT_STEPS,
      checkpointShareMax: config.MOEVIE_CHECKPOINT_SHARE,
      previewSteps: config.MOEVIE_PREVIEW_STEPS,
      referenceDir: config.MOEVIE_REFERENCE_DIR,
      leaseMs: limit("leaseMs"),
      leaseRenewMs: limit("leaseRenewMs"),
      retry: {
        firstPauseMs: limit("retryPauseMsMin"),
        pauseMsMax: limit("connectRetryMsMax"),
        totalMsMax: limit("peerWaitMsMax"),
      },
    };
    const scheduler = startScheduler({
      store,
      model,
      peers,
      settings,
      log,
      metrics,
      tracing,
      clock: systemClock,
      signal,
    });
    return {
      async close() {
        await scheduler.stopped;
        for (const peer of Object.values(peers)) peer.close();
        await store.close();
      },
    };
  },
});
