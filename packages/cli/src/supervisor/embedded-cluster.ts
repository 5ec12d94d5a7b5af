// A whole cluster on this machine, from nothing to ready and back to nothing: run folder, bundle, children, guard.
// The one entry for generate, serve and benches; parses no flags and prints nothing.
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { limit } from "@moevie/contracts";
import type { CliConfig } from "../config.ts";
import type { Clock } from "../clock.ts";
import type { CommandError } from "../failure.ts";
import { nodeArguments } from "../node-arguments.ts";
import { Cluster, type ClusterEvent } from "./cluster.ts";
import { defaultBundle } from "./default-bundle.ts";
import { guardAtExit } from "./last-resort.ts";
import { planCluster } from "./plan-cluster.ts";
import { createRunFolder, removeRunFolder, removeStaleRunFolders } from "./run-folder.ts";

export interface EmbeddedClusterOptions {
  readonly config: CliConfig;
  readonly clock: Clock;
  /** Folder of the bundle; absent: the starter model's. */
  readonly bundleDir?: string | undefined;
  readonly shardCount: number;
  /** Slots of a layer over all shards, which a controller fills; absent: no controller. */
  readonly slots?: number | undefined;
  /** Where jobs and clips are kept; absent: in the run folder, gone afterwards. */
  readonly dataDir?: string | undefined;
  /** Servers of the NATS job store, comma separated; absent: a file in dataDir. */
  readonly nats?: string | undefined;
  /** HOST:PORT of the gateway; absent: sockets in the run folder. */
  readonly grpcListen?: string;
  readonly httpListen?: string;
  readonly restart: boolean;
  /** Requests may name tensors in the cluster's reference folder. */
  readonly reference?: boolean;
  readonly logFormat: "json" | "pretty";
  readonly logLevel: string;
  readonly forwardLog?: ((line: string) => void) | undefined;
  readonly signal: AbortSignal;
  readonly onEvent?: (event: ClusterEvent | { readonly kind: "building-bundle" }) => void;
}

export interface EmbeddedCluster {
  /** Gateway's addresses as it reported them: HOST:PORT or unix:PATH. */
  readonly grpcAddress: string;
  readonly httpAddress: string;
  readonly runDir: string;
  readonly bundleDir: string;
  readonly dataDir: string;
  readonly referenceDir: string;
  /** Resolves when the cluster cannot go on. */
  readonly fatal: Promise<CommandError>;
  /** Names and process ids of the children as they are now. */
  processes(): { name: string; pid: number | undefined }[];
  /** Stops every process and removes the run folder; 0 kills at once. */
  stop(graceMs?: number): Promise<void>;
}

/** What every child inherits: the operator's environment, and compiled code shared between starts. */
function childEnvironment(config: CliConfig): Record<string, string> {
  return { NODE_COMPILE_CACHE: join(config.cacheDir, "compile"), ...config.environment };
}

/** The folder of the bundle to serve. */
function bundleOf(options: EmbeddedClusterOptions): Promise<string> {
  if (options.bundleDir !== undefined) return Promise.resolve(options.bundleDir);
  const { config, signal, onEvent } = options;
  return defaultBundle({
    root: config.root,
    cacheDir: config.cacheDir,
    node: process.execPath,
    nodeArguments: nodeArguments(config.root),
    environment: childEnvironment(config),
    signal,
    onBuild: () => onEvent?.({ kind: "building-bundle" }),
  });
}

/** Starts a cluster and waits until it is ready. On any failure or abort nothing is left behind. */
export async function startEmbeddedCluster(options: EmbeddedClusterOptions): Promise<EmbeddedCluster> {
  const { config, clock } = options;
  removeStaleRunFolders(config.temporaryDir);
  const bundleDir = await bundleOf(options);
  const runDir = createRunFolder(config.temporaryDir);
  let cluster: Cluster | undefined;
  const release = guardAtExit({ runDir, processes: () => cluster?.processes() ?? [] });
  const close = async (graceMs?: number): Promise<void> => {
    await cluster?.stop(graceMs);
    removeRunFolder(runDir);
    release();
  };
  try {
    const dataDir = options.dataDir ?? join(runDir, "data");
    mkdirSync(dataDir, { recursive: true, mode: 0o700 });
    const grpcListen = options.grpcListen ?? `unix:${join(runDir, "gateway.sock")}`;
    const httpListen = options.httpListen ?? `unix:${join(runDir, "gateway.http.sock")}`;
    const { logFormat, logLevel, shardCount, slots } = options;
    const environment = childEnvironment(config);
    const referenceDir = join(runDir, "reference");
    const plans = planCluster({
      root: config.root,
      runDir,
      bundleDir,
      dataDir,
      nats: options.nats,
      shardCount,
      slots,
      grpcListen,
      httpListen,
      logFormat,
      logLevel,
      environment,
      referenceDir: options.reference === true ? referenceDir : undefined,
    });
    cluster = new Cluster(plans, {
      node: process.execPath,
      nodeArguments: nodeArguments(config.root),
      clock,
      restart: options.restart,
      readyWaitMsMax: limit("readyWaitMsMax"),
      signal: options.signal,
      ...(options.onEvent === undefined ? {} : { onEvent: options.onEvent }),
      forwardLog: options.forwardLog,
    });
    await cluster.waitReady();
    const running = cluster;
    const { grpc, http } = running.addresses("gateway");
    const processes = () => running.processes().map(({ name, pid }) => ({ name, pid }));
    return {
      grpcAddress: grpc,
      httpAddress: http,
      runDir,
      bundleDir,
      dataDir,
      referenceDir,
      fatal: running.fatal,
      processes,
      stop: close,
    };
  } catch (error) {
    await close(0);
    throw error;
  }
}
