// What every service process does around its own work: settings, log, metrics, traces, health, gRPC, drain, exit.
import { MoevieError, asMoevieError, limit, type ServiceName } from "@moevie/contracts";
import { SERVICE_SETTINGS, readConfig } from "./config.ts";
import { serveGrpc, type GrpcServer, type GrpcService } from "./grpc-server.ts";
import { serveHttp, type HttpEdge, type HttpHandler } from "./http-edge.ts";
import { createLogger, type Logger } from "./logger.ts";
import { Metrics } from "./metrics.ts";
import { pause } from "./pause.ts";
import { UNSUPERVISED, superviseBy } from "./supervision.ts";
import { openTracing, type Tracing } from "./tracing.ts";

export interface ServiceContext {
  /** For config.ts alone. */
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly log: Logger;
  readonly metrics: Metrics;
  readonly tracing: Tracing;
  /** Aborts when the service drains. */
  readonly signal: AbortSignal;
  /** Ends the process with a public reason: something it cannot work without is gone. */
  readonly fail: (error: MoevieError) => void;
}

export interface RunningService {
  readonly grpc?: readonly GrpcService[];
  readonly http?: HttpHandler;
  /** For a service whose data plane is its own gRPC server: binds it instead of the common one (it answers health too). */
  readonly serveOn?: (listen: string) => Promise<GrpcServer>;
  /** Called once when the service is told to end, before its server stops taking calls; resolves when it may. */
  readonly leave?: () => Promise<void>;
  /** Called once, after the server stopped taking calls. */
  close(): Promise<void>;
}

export interface ServiceDescription {
  readonly name: ServiceName;
  /** Resolves when the service is proven ready: its model ran once, its peers answer. */
  start(context: ServiceContext): Promise<RunningService>;
}

/** ONNX Runtime reports usage and leaves files in the temporary folder unless this is set before its library loads. */
const NO_TELEMETRY = "ORT_DISABLE_TELEMETRY";

/** Runs a service until SIGTERM. Never returns control to a caller that could go wrong: main.ts ends with it. */
export function runService(description: ServiceDescription): void {
  process.env[NO_TELEMETRY] = "1";
  void live(description, process.env);
}

async function live(description: ServiceDescription, env: Readonly<Record<string, string | undefined>>): Promise<void> {
  let log: Logger | undefined;
  let supervision = UNSUPERVISED;
  const end = (error: MoevieError): never => {
    log?.fatal({ reason: error.reason, detail: error.detail, err: error.cause }, error.message);
    if (log === undefined) process.stderr.write(`${description.name}: ${error.message}\n`);
    supervision.failed(error.message);
    process.exit(1);
  };
  process.on("unhandledRejection", (thrown) => end(asMoevieError(thrown)));
  process.on("uncaughtException", (thrown) => end(asMoevieError(thrown)));
  try {
    const config = readConfig(env, SERVICE_SETTINGS);
    const name = config.MOEVIE_SERVICE === "" ? description.name : config.MOEVIE_SERVICE;
    if (config.MOEVIE_SUPERVISED) supervision = superviseBy(config.MOEVIE_RUN_DIR);
    process.title = `moevie-${name}`;
    // Graphs name their weights relative to the root folder (see bundle).
    process.chdir("/");
    log = await createLogger({ service: name, level: config.MOEVIE_LOG_LEVEL, format: config.MOEVIE_LOG_FORMAT });
    const metrics = new Metrics(name);
    metrics.set("moevie_build_info", { version: "0.1.0", node: process.version }, 1);
    metrics.set("moevie_draining", {}, 0);
    const tracing = await openTracing({
      service: name,
      endpoint: config.OTEL_EXPORTER_OTLP_ENDPOINT,
      sampleRatio: config.OTEL_TRACES_SAMPLER_ARG,
    });
    const draining = new AbortController();
    const http = await serveHttp(config.MOEVIE_HTTP_LISTEN, metrics);
    const stop = waitForSignal(draining);
    const started = description.start({ env, log, metrics, tracing, signal: draining.signal, fail: end });
    const running = await Promise.race([started, stop]);
    if (running === "stop") process.exit(0);
    if (running.http !== undefined) http.use(running.http);
    const listen = config.MOEVIE_GRPC_LISTEN;
    const common = {
      listen,
      services: running.grpc ?? [],
      log,
      metrics,
      tracing,
      reflection: config.MOEVIE_REFLECTION,
    };
    const grpc = await (running.serveOn === undefined ? serveGrpc(common) : running.serveOn(listen));
    grpc.setServing(true);
    http.setReady(true);
    metrics.set("moevie_model_loaded", {}, 1);
    metrics.set("moevie_model_load_seconds", {}, process.uptime());
    log.info({ grpc: grpc.address, http: http.address, seconds: Number(process.uptime().toFixed(3)) }, "ready");
    supervision.ready({ grpc: grpc.address, http: http.address });
    await stop;
    await drain(running, grpc, http, { log, metrics, tracing });
    process.exit(0);
  } catch (thrown) {
    end(asMoevieError(thrown));
  }
}

/** Resolves at the first SIGTERM or SIGINT and aborts the drain signal; the second one ends the process at once. */
function waitForSignal(draining: AbortController): Promise<"stop"> {
  return new Promise((resolve) => {
    const onSignal = (): void => {
      if (draining.signal.aborted) process.exit(1);
      draining.abort(new MoevieError("DRAINING", "The service is going away."));
      resolve("stop");
    };
    process.on("SIGTERM", onSignal);
    process.on("SIGINT", onSignal);
  });
}

async function drain(
  running: RunningService,
  grpc: GrpcServer,
  http: HttpEdge,
  edges: { log: Logger; metrics: Metrics; tracing: Tracing },
): Promise<void> {
  edges.log.info("draining");
  edges.metrics.set("moevie_draining", {}, 1);
  grpc.setServing(false);
  http.setReady(false);
  await running.leave?.();
  const work = (async () => {
    await grpc.close(limit("drainMsMax") / 2);
    await running.close();
    await http.close();
    await edges.tracing.close();
  })();
  await Promise.race([work, pause(limit("drainMsMax")).then(() => edges.log.warn("drain ran out of time"))]);
}
