// Settings of a controller. The only file here that reads the environment it is given.
import { MoevieError } from "@moevie/contracts";
import { expandAddresses, parseAddress, readConfig } from "@moevie/runtime";
import type { PeerAddress, ServiceContext } from "@moevie/runtime";
import type { ObjectName } from "./kubernetes-objects.ts";

export interface ControllerConfig {
  readonly bundle: string;
  /** Where lease and placement are kept: a folder, or a Lease of Kubernetes and a ConfigMap beside it. */
  readonly kept: { readonly folder: string } | KubernetesKept;
  /** HTTP addresses of the routers, whose loads are counted. */
  readonly routers: readonly string[];
  /** Addresses of the shards; the place in the list is the shard's index. */
  readonly shards: readonly PeerAddress[];
  /** Slots of a layer over all shards; 0: as many as the model has experts. */
  readonly slots: number;
  readonly planMs: number;
  /** What balancedness has to gain for a placement to change. */
  readonly gainMin: number;
  /** Milliseconds a placement stays, whatever the loads are. */
  readonly ageMsMin: number;
  /** How much longer than a change took shards rest after it: where they share processors, a load slows the steps beside it. */
  readonly restRatio: number;
  /** Milliseconds after which a counted row counts half. */
  readonly halfLifeMs: number;
}

interface KubernetesKept {
  readonly lease: ObjectName;
  readonly configMap: ObjectName;
  /** Empty: the pod's own account. */
  readonly kubeconfig: string;
}

/** A name of Kubernetes; the ConfigMap's is longer by its ending. */
const LEASE_NAME = /^([a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)\/([a-z0-9](?:[a-z0-9-]{0,50}[a-z0-9])?)$/;
const SLOTS_MAX = 4096;
const MS_MAX = 86_400_000;

/** Throws CONFIG_INVALID naming variable, value and what is allowed. */
export function controllerConfig(env: ServiceContext["env"]): ControllerConfig {
  const read = readConfig(env, {
    MOEVIE_BUNDLE: { kind: "path" },
    MOEVIE_DATA: { kind: "path", default: "" },
    MOEVIE_KUBERNETES_LEASE: { kind: "string", default: "" },
    MOEVIE_KUBECONFIG: { kind: "path", default: "" },
    MOEVIE_ROUTERS_HTTP: { kind: "list" },
    MOEVIE_SHARDS: { kind: "list" },
    MOEVIE_SLOTS: { kind: "int", min: 0, max: SLOTS_MAX, default: 0 },
    MOEVIE_PLAN_MS: { kind: "int", min: 10, max: MS_MAX, default: 5000 },
    MOEVIE_PLAN_GAIN_MIN: { kind: "float", min: 0, max: 1, default: 0.05 },
    MOEVIE_PLAN_AGE_MS_MIN: { kind: "int", min: 0, max: MS_MAX, default: 60_000 },
    MOEVIE_REST_RATIO: { kind: "float", min: 0, max: 1000, default: 4 },
    MOEVIE_LOAD_HALF_LIFE_MS: { kind: "int", min: 100, max: MS_MAX, default: 120_000 },
  });
  if (read.MOEVIE_ROUTERS_HTTP.length === 0)
    throw new MoevieError("CONFIG_INVALID", 'MOEVIE_ROUTERS_HTTP is ""; allowed: one or more addresses');
  for (const address of read.MOEVIE_ROUTERS_HTTP) parseAddress(address, "MOEVIE_ROUTERS_HTTP");
  const shards = expandAddresses(read.MOEVIE_SHARDS, "MOEVIE_SHARDS");
  // Of shards that come and go nobody knows the number; each then has as many slots as make up for it.
  const numbered = shards.some((shard) => shard.numbered);
  if (!numbered && read.MOEVIE_SLOTS % shards.length !== 0)
    throw new MoevieError(
      "CONFIG_INVALID",
      `MOEVIE_SLOTS is "${read.MOEVIE_SLOTS}"; allowed: a multiple of the ${shards.length} shards`,
    );
  return {
    bundle: read.MOEVIE_BUNDLE,
    kept: keptIn(read.MOEVIE_DATA, read.MOEVIE_KUBERNETES_LEASE, read.MOEVIE_KUBECONFIG),
    routers: read.MOEVIE_ROUTERS_HTTP,
    shards,
    slots: read.MOEVIE_SLOTS,
    planMs: read.MOEVIE_PLAN_MS,
    gainMin: read.MOEVIE_PLAN_GAIN_MIN,
    ageMsMin: read.MOEVIE_PLAN_AGE_MS_MIN,
    restRatio: read.MOEVIE_REST_RATIO,
    halfLifeMs: read.MOEVIE_LOAD_HALF_LIFE_MS,
  };
}

function keptIn(folder: string, lease: string, kubeconfig: string): ControllerConfig["kept"] {
  if (lease === "" && folder !== "") return { folder };
  if (lease === "")
    throw new MoevieError(
      "CONFIG_INVALID",
      "MOEVIE_DATA is not set; allowed: an absolute path, or MOEVIE_KUBERNETES_LEASE",
    );
  const [, namespace, name] = LEASE_NAME.exec(lease) ?? [];
  if (namespace === undefined || name === undefined) {
    const allowed = "NAMESPACE/NAME, each of small letters, digits and dashes, the name up to 52";
    throw new MoevieError("CONFIG_INVALID", `MOEVIE_KUBERNETES_LEASE is "${lease}"; allowed: ${allowed}`);
  }
  return { lease: { namespace, name }, configMap: { namespace, name: `${name}-placement` }, kubeconfig };
}
