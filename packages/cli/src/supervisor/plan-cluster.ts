// Which processes make a cluster on one machine, where each listens and what each is told. Pure: starts nothing.
import { join } from "node:path";
import type { EnvironmentName, ServiceName } from "@moevie/contracts";

export interface ClusterRequest {
  /** Root of the project: holds packages/. */
  readonly root: string;
  readonly runDir: string;
  readonly bundleDir: string;
  readonly dataDir: string;
  /** Servers of the NATS job store, comma separated; absent: a file in dataDir. */
  readonly nats?: string | undefined;
  /** Number of expert-shard processes, at least 1. */
  readonly shardCount: number;
  /** Slots of a layer over all shards, which a controller fills; absent: no controller. */
  readonly slots?: number | undefined;
  /** Gateway's public addresses: HOST:PORT or unix:PATH. */
  readonly grpcListen: string;
  readonly httpListen: string;
  readonly logLevel: string;
  readonly logFormat: "json" | "pretty";
  /** Settings the operator's own environment may carry on to the children. */
  readonly environment: Readonly<Record<string, string>>;
  /** Folder in which requests may name tensors; absent: what the operator's environment says. */
  readonly referenceDir?: string | undefined;
}

/** One process to start. */
export interface ServicePlan {
  /** Unique in the cluster, e.g. "expert-shard-0". */
  readonly name: string;
  /** TypeScript or JavaScript file that Node runs. */
  readonly entry: string;
  readonly environment: Readonly<Record<string, string>>;
  /** Sockets the process makes; removed before each start. */
  readonly sockets: readonly string[];
}

/** What the supervisor itself decides; the operator's environment may not overrule these. */
type OwnedName = Exclude<EnvironmentName, "MOEVIE_DEVICE" | "MOEVIE_INTRA_OP_THREADS">;
type Settings = Partial<Record<OwnedName, string>>;

function grpcSocket(request: ClusterRequest, name: string): string {
  return join(request.runDir, `${name}.sock`);
}

function httpSocket(request: ClusterRequest, name: string): string {
  return join(request.runDir, `${name}.http.sock`);
}

/** On one machine every session has one thread: the processes side by side fill the cores. */
const ONE_THREAD = "1";

function service(request: ClusterRequest, kind: ServiceName, name: string, settings: Settings): ServicePlan {
  const grpc = grpcSocket(request, name);
  const http = httpSocket(request, name);
  const owned: Settings = {
    MOEVIE_SERVICE: name,
    MOEVIE_RUN_DIR: request.runDir,
    MOEVIE_SUPERVISED: "1",
    MOEVIE_GRPC_LISTEN: `unix:${grpc}`,
    MOEVIE_HTTP_LISTEN: `unix:${http}`,
    MOEVIE_BUNDLE: request.bundleDir,
    MOEVIE_DATA: request.dataDir,
    MOEVIE_NATS: request.nats ?? "",
    MOEVIE_LOG_LEVEL: request.logLevel,
    MOEVIE_LOG_FORMAT: request.logFormat,
    ...(request.referenceDir !== undefined && { MOEVIE_REFERENCE_DIR: request.referenceDir }),
    ...settings,
  };
  return {
    name,
    entry: join(request.root, "packages", kind, "src", "main.ts"),
    environment: { MOEVIE_INTRA_OP_THREADS: ONE_THREAD, ...request.environment, ...owned },
    sockets: [grpc, http],
  };
}

/** The processes of one cluster, in the order a person thinks of them; they start all at once. */
export function planCluster(request: ClusterRequest): ServicePlan[] {
  const address = (name: string) => `unix:${grpcSocket(request, name)}`;
  const shardNames = Array.from({ length: request.shardCount }, (_, index) => `expert-shard-${index}`);
  const controllers = request.slots === undefined ? [] : ["controller"];
  const inner = ["scheduler", "text-encoder", "router", ...shardNames, "decoder", ...controllers];
  const peers: Settings = {
    MOEVIE_TEXT_ENCODER: address("text-encoder"),
    MOEVIE_ROUTER: address("router"),
    MOEVIE_DECODER: address("decoder"),
  };
  const metrics = inner.map((name) => `${name}=unix:${httpSocket(request, name)}`).join(",");
  return [
    service(request, "gateway", "gateway", {
      MOEVIE_GRPC_LISTEN: request.grpcListen,
      MOEVIE_HTTP_LISTEN: request.httpListen,
      MOEVIE_METRICS_PEERS: metrics,
    }),
    service(request, "text-encoder", "text-encoder", {}),
    service(request, "scheduler", "scheduler", { ...peers, MOEVIE_SCHEDULER_NAME: `scheduler of ${request.runDir}` }),
    service(request, "router", "router", { MOEVIE_SHARDS: shardNames.map(address).join(",") }),
    ...shardNames.map((name, index) =>
      service(request, "expert-shard", name, {
        MOEVIE_SHARD_INDEX: String(index),
        MOEVIE_SHARD_COUNT: String(request.shardCount),
      }),
    ),
    service(request, "decoder", "decoder", {}),
    ...controllers.map((name) =>
      service(request, "controller", name, {
        MOEVIE_SHARDS: shardNames.map(address).join(","),
        MOEVIE_ROUTERS_HTTP: `unix:${httpSocket(request, "router")}`,
        MOEVIE_SLOTS: String(request.slots),
      }),
    ),
  ];
}
