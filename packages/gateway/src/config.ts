// The gateway's settings; the only file of it that reads the environment.
import { STORE_SETTINGS, type openJobStore } from "@moevie/job-store";
import { readConfig } from "@moevie/runtime";
import { MoevieError } from "@moevie/contracts";

/** An HTTP server whose metrics the gateway shows too. */
export interface MetricsPeer {
  readonly name: string;
  /** HOST:PORT or unix:PATH. */
  readonly address: string;
}

export interface GatewayConfig {
  readonly bundle: string;
  readonly store: Parameters<typeof openJobStore>[0];
  readonly metricsPeers: readonly MetricsPeer[];
  /** Prompts are private: they reach the log only when the operator says so. */
  readonly logPrompts: boolean;
  /** Requests may name tensors in the reference folder. */
  readonly referenceAllowed: boolean;
}

/** Throws CONFIG_INVALID. */
export function gatewayConfig(env: Readonly<Record<string, string | undefined>>): GatewayConfig {
  const read = readConfig(env, {
    MOEVIE_BUNDLE: { kind: "path" },
    ...STORE_SETTINGS,
    MOEVIE_METRICS_PEERS: { kind: "list", default: [] },
    MOEVIE_REFERENCE_DIR: { kind: "path", default: "" },
    MOEVIE_LOG_PROMPTS: { kind: "bool", default: false },
  });
  const metricsPeers = read.MOEVIE_METRICS_PEERS.map((entry) => {
    const at = entry.indexOf("=");
    if (at <= 0)
      throw new MoevieError(
        "CONFIG_INVALID",
        `MOEVIE_METRICS_PEERS has "${entry}"; allowed: name=address,name=address`,
      );
    return { name: entry.slice(0, at), address: entry.slice(at + 1) };
  });
  return {
    bundle: read.MOEVIE_BUNDLE,
    store: read,
    metricsPeers,
    logPrompts: read.MOEVIE_LOG_PROMPTS,
    referenceAllowed: read.MOEVIE_REFERENCE_DIR !== "",
  };
}
