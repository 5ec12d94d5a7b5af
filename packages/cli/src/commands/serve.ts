// `moevie serve`: a cluster on this machine that stays up, restarts what dies and says where it listens.
import { statSync } from "node:fs";
import { resolve } from "node:path";
import { makeFolder } from "../make-folder.ts";
import { checkBundle, checkShardCount } from "../bundle-folder.ts";
import { textFlag, type CommandContext, type CommandResult, type RawFlags } from "../command.ts";
import { InterruptedError, UsageError } from "../failure.ts";
import { checkHost, checkPortFree, hostPort } from "../listen-address.ts";
import { ProgressView } from "../progress-view.ts";
import type { ClusterEvent } from "../supervisor/cluster.ts";
import { lockData } from "../supervisor/data-lock.ts";
import { startEmbeddedCluster, type EmbeddedCluster } from "../supervisor/embedded-cluster.ts";
import { parseWholeNumber } from "../video-flags.ts";
import { SHARD_COUNT } from "../shard-count.ts";

const PORTS = { min: 0, max: 65_535 } as const;
const GRPC_PORT_DEFAULT = 7900;
const HTTP_PORT_DEFAULT = 7901;
const SLOTS_MAX = 4096;

interface ServeRequest {
  readonly shardCount: number;
  readonly slots: number | undefined;
  /** Absent with NATS. */
  readonly dataDir: string | undefined;
  readonly nats: string | undefined;
  readonly bundleDir: string | undefined;
  readonly grpcListen: string;
  readonly httpListen: string;
}

function prepareData(flag: string | undefined, fallback: string | undefined): string {
  const path = resolve(flag ?? fallback ?? "");
  if (flag === undefined && fallback === undefined)
    throw new UsageError([{ flag: "--data", value: "", allowed: "a folder; this user has no home to keep data in" }]);
  if (flag === "" || statSync(path, { throwIfNoEntry: false })?.isDirectory() === false)
    throw new UsageError([
      { flag: "--data", value: flag ?? path, allowed: "a folder, or a path where one can be made" },
    ]);
  try {
    makeFolder(path);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? "unknown";
    throw new UsageError([{ flag: "--data", value: path, allowed: `a path where a folder can be made (${code})` }]);
  }
  return path;
}

/** Servers of the job store. Credentials come by the environment: a command line is seen by everybody. */
function checkNats(flag: string | undefined): string | undefined {
  for (const server of flag?.split(",") ?? []) {
    if (/^(nats|tls):\/\/[^/@\s]+$/.test(server) && URL.canParse(server)) continue;
    const allowed =
      "nats://HOST:PORT or tls://HOST:PORT, comma separated; credentials come by MOEVIE_NATS_USER and its neighbours";
    throw new UsageError([{ flag: "--nats", value: server.replace(/\/\/.*@/, "//…@"), allowed }]);
  }
  return flag;
}

/** Places for experts in a layer: so many of them on each shard. */
function parseSlots(flags: RawFlags, shardCount: number): number | undefined {
  const value = textFlag(flags, "slots");
  if (value === undefined) return undefined;
  const slots = parseWholeNumber(flags, "slots", "--slots", { min: 1, max: SLOTS_MAX, default: 0 });
  if (slots % shardCount === 0) return slots;
  throw new UsageError([{ flag: "--slots", value, allowed: `a multiple of the ${shardCount} shards` }]);
}

async function parseServe(context: CommandContext, flags: RawFlags): Promise<ServeRequest> {
  const host = textFlag(flags, "host") ?? "127.0.0.1";
  const shardCount = parseWholeNumber(flags, "shards", "--shards", SHARD_COUNT);
  const slots = parseSlots(flags, shardCount);
  const grpcPort = parseWholeNumber(flags, "grpcPort", "--grpc-port", { ...PORTS, default: GRPC_PORT_DEFAULT });
  const httpPort = parseWholeNumber(flags, "httpPort", "--http-port", { ...PORTS, default: HTTP_PORT_DEFAULT });
  checkHost(host, flags["insecure"] === true);
  if (grpcPort === httpPort && grpcPort !== 0)
    throw new UsageError([{ flag: "--http-port", value: String(httpPort), allowed: "another port than --grpc-port" }]);
  const model = textFlag(flags, "model");
  const bundle = model === undefined ? undefined : await checkBundle("--model", model);
  checkShardCount(shardCount, bundle);
  await checkPortFree("--grpc-port", host, grpcPort);
  await checkPortFree("--http-port", host, httpPort);
  const nats = checkNats(textFlag(flags, "nats"));
  const data = textFlag(flags, "data");
  if (nats !== undefined && data !== undefined)
    throw new UsageError([{ flag: "--data", value: data, allowed: "nothing beside --nats: jobs and clips lie there" }]);
  const dataDir = nats === undefined ? prepareData(data, context.config.dataDir) : undefined;
  return {
    shardCount,
    slots,
    dataDir,
    nats,
    bundleDir: bundle?.folder,
    grpcListen: hostPort(host, grpcPort),
    httpListen: hostPort(host, httpPort),
  };
}

function show(
  view: ProgressView,
  context: CommandContext,
  event: ClusterEvent | { readonly kind: "building-bundle" },
): void {
  if (event.kind === "building-bundle") view.show("bundle", "building the starter model's bundle (once)");
  else if (event.kind === "ready") view.show("start", `starting: ${event.readyCount} of ${event.count} services ready`);
  else if (event.kind === "died")
    context.output.note(`moevie: ${event.name} died: ${event.cause}; starting it again in ${event.restartMs} ms`);
  else context.output.note(`moevie: ${event.name} is back`);
}

/** What a crashing process writes beside its log is not for people: its end is told in one line of our own. */
function isLogLine(line: string, pretty: boolean): boolean {
  return pretty ? !/^\s+at |^node:|^file:/.test(line) : line.startsWith("{");
}

/** Stops the cluster; a second signal hurries. */
async function stopCluster(cluster: EmbeddedCluster, hurry: AbortSignal): Promise<void> {
  hurry.addEventListener("abort", () => void cluster.stop(0), { once: true });
  await cluster.stop(hurry.aborted ? 0 : undefined);
}

export async function serve(
  context: CommandContext,
  _args: readonly string[],
  flags: RawFlags,
): Promise<CommandResult> {
  const request = await parseServe(context, flags);
  const unlock = request.dataDir === undefined ? () => undefined : lockData(request.dataDir);
  try {
    return await serveUntilStopped(context, request);
  } finally {
    unlock();
  }
}

async function serveUntilStopped(context: CommandContext, request: ServeRequest): Promise<never> {
  const { config, clock, output, interruption } = context;
  const view = new ProgressView(output, context.json);
  const startMs = clock.nowMs();
  const cluster = await startEmbeddedCluster({
    ...request,
    config,
    clock,
    restart: true,
    logFormat: output.interactive ? "pretty" : "json",
    logLevel: config.logLevel ?? "info",
    forwardLog: (line) => {
      if (isLogLine(line, output.interactive)) output.note(line);
    },
    signal: interruption.signal,
    onEvent: (event) => show(view, context, event),
  });
  const facts = {
    grpc: cluster.grpcAddress,
    http: `http://${cluster.httpAddress}`,
    ...(request.nats === undefined ? { data: cluster.dataDir } : { nats: request.nats }),
    bundle: cluster.bundleDir,
    startSeconds: (clock.nowMs() - startMs) / 1000,
    processes: cluster.processes(),
  };
  if (context.json) output.printObject(facts);
  else {
    output.print(`gRPC    ${facts.grpc}`);
    output.print(`HTTP    ${facts.http} (/readyz, /metrics)`);
    output.print(request.nats === undefined ? `data    ${cluster.dataDir}` : `jobs    ${request.nats}`);
    output.print(`ready after ${facts.startSeconds.toFixed(1)} s; Ctrl-C stops it`);
  }
  const interrupted = new Promise<undefined>((settle) => {
    if (interruption.signal.aborted) settle(undefined);
    interruption.signal.addEventListener("abort", () => settle(undefined), { once: true });
  });
  const fatal = await Promise.race([cluster.fatal, interrupted]);
  await stopCluster(cluster, interruption.hurry);
  throw fatal ?? new InterruptedError("stopped");
}
