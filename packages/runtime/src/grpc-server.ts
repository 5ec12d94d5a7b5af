// The gRPC server edge: promise-style handlers, health, reflection, metrics, error mapping. Knows no service.
import { rm } from "node:fs/promises";
import {
  Metadata,
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  type ServerReadableStream,
  type ServerWritableStream,
  type ServiceDefinition,
  type UntypedServiceImplementation,
  type sendUnaryData,
} from "@grpc/grpc-js";
import {
  MoevieError,
  TENANT_KEY,
  asMoevieError,
  limit,
  protoDefinitions,
  type ServiceMethods,
} from "@moevie/contracts";
import { ReflectionService } from "@grpc/reflection";
import { HealthImplementation } from "grpc-health-check";
import { formatAddress, parseAddress } from "./address.ts";
import { toStatus } from "./grpc-errors.ts";
import type { Logger } from "./logger.ts";
import type { Metrics } from "./metrics.ts";
import type { Tracing } from "./tracing.ts";

export type ServiceKey = keyof ServiceMethods;
/** What handlers may leave out: every field has a proto default. */
export type Loose<T> = T extends Buffer | string | number | boolean | null | undefined
  ? T
  : T extends (infer U)[]
    ? Loose<U>[]
    : { [K in keyof T]?: Loose<T[K]> };

/** What a handler may know of its call. */
export interface CallInfo {
  /** Aborts when the caller goes away, the deadline passes or the server is closed by force. */
  readonly signal: AbortSignal;
  /** Aborts when the server takes no more calls: a stream that serves many requests ends after the one at hand. */
  readonly draining: AbortSignal;
  /** Epoch milliseconds; Infinity without one. */
  readonly deadlineMs: number;
  readonly traceparent: string | undefined;
  /** What the metadata says whose call it is; not proved by anything. */
  readonly tenant?: string;
}

type Handler<M> = M extends { kind: "unary"; request: infer Q; response: infer S }
  ? (request: Q, call: CallInfo) => Promise<Loose<S>>
  : M extends { kind: "serverStream"; request: infer Q; response: infer S }
    ? (request: Q, call: CallInfo) => AsyncIterable<Loose<S>>
    : M extends { kind: "clientStream"; request: infer Q; response: infer S }
      ? (requests: AsyncIterable<Q>, call: CallInfo) => Promise<Loose<S>>
      : M extends { kind: "bidi"; request: infer Q; response: infer S }
        ? (requests: AsyncIterable<Q>, call: CallInfo) => AsyncIterable<Loose<S>>
        : never;
export type Handlers<K extends ServiceKey> = { [M in keyof ServiceMethods[K]]: Handler<ServiceMethods[K][M]> };

/** One service with its handlers; make it with `implement`. */
export interface GrpcService {
  readonly name: string;
  readonly handlers: Readonly<Record<string, unknown>>;
}
export function implement<K extends ServiceKey>(name: K, handlers: Handlers<K>): GrpcService {
  return { name, handlers: handlers as Readonly<Record<string, unknown>> };
}

export interface GrpcServer {
  /** The bound address, as peers dial it. */
  readonly address: string;
  setServing(serving: boolean): void;
  /** Stops taking calls, waits for running ones up to `graceMs`, then ends them. */
  close(graceMs: number): Promise<void>;
}

export interface GrpcServerOptions {
  readonly listen: string;
  readonly services: readonly GrpcService[];
  readonly log: Logger;
  readonly metrics: Metrics;
  readonly reflection: boolean;
  /** Milliseconds without a sign of life after which a caller counts as gone. Default silenceMsMax. */
  readonly silenceMs?: number;
  /** Milliseconds after which a connection takes no new calls, give or take a tenth. Default connectionAgeMsMax. */
  readonly connectionAgeMs?: number;
  /** Calls that carry a trace become spans of it. */
  readonly tracing?: Tracing;
}

/** Binds and starts. Throws CONFIG_INVALID when the address cannot be had. */
export async function serveGrpc(options: GrpcServerOptions): Promise<GrpcServer> {
  const { silenceMs = limit("silenceMsMax"), connectionAgeMs = limit("connectionAgeMsMax") } = options;
  const server = new Server({
    "grpc.max_connection_age_ms": connectionAgeMs,
    "grpc.keepalive_time_ms": silenceMs / 2,
    "grpc.keepalive_timeout_ms": silenceMs / 2,
    "grpc.max_receive_message_length": limit("grpcMessageBytesMax"),
    "grpc.max_send_message_length": limit("grpcMessageBytesMax"),
  });
  const definitions = protoDefinitions();
  const draining = new AbortController();
  for (const service of options.services) {
    const definition = definitions[service.name] as ServiceDefinition;
    server.addService(definition, adaptAll(service, definition, options, draining.signal));
  }
  const health = new HealthImplementation({
    "": "NOT_SERVING",
    ...Object.fromEntries(options.services.map((s) => [s.name, "NOT_SERVING"])),
  });
  health.addToServer(server);
  if (options.reflection && options.services.length > 0)
    new ReflectionService(definitions, { services: options.services.map((s) => s.name) }).addToServer(server);
  const address = await bind(server, options.listen);
  return {
    address,
    setServing: (serving) => {
      for (const name of ["", ...options.services.map((s) => s.name)])
        health.setStatus(name, serving ? "SERVING" : "NOT_SERVING");
    },
    close: (graceMs) =>
      new Promise((resolve) => {
        draining.abort();
        const timer = setTimeout(() => {
          server.forceShutdown();
          // tryShutdown never answers where a connection was just being dropped by keep-alive.
          resolve();
        }, graceMs);
        server.tryShutdown(() => {
          clearTimeout(timer);
          resolve();
        });
      }),
  };
}

async function bind(server: Server, listen: string): Promise<string> {
  const address = parseAddress(listen, "MOEVIE_GRPC_LISTEN");
  if (address.kind === "unix") await rm(address.path, { force: true });
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync(formatAddress(address), ServerCredentials.createInsecure(), (error, bound) => {
      if (error === null) resolve(bound);
      else
        reject(
          new MoevieError(
            "CONFIG_INVALID",
            `MOEVIE_GRPC_LISTEN is "${listen}"; it cannot be bound (${/EADDRINUSE/.test(error.message) ? "in use" : error.message})`,
            { cause: error },
          ),
        );
    });
  });
  return address.kind === "unix" ? listen : formatAddress({ ...address, port });
}

interface AnyCall {
  readonly metadata: Metadata;
  readonly request: object;
  on(event: "cancelled", listener: () => void): unknown;
  getDeadline(): number | Date;
}

function adaptAll(
  service: GrpcService,
  definition: ServiceDefinition,
  options: GrpcServerOptions,
  draining: AbortSignal,
): UntypedServiceImplementation {
  const adapted: UntypedServiceImplementation = {};
  for (const [method, { requestStream, responseStream }] of Object.entries(definition)) {
    const handler = service.handlers[method];
    if (typeof handler !== "function") throw new Error(`${service.name}.${method} has no handler`);
    const observe = observer(service.name, method, options);
    const adapter = responseStream
      ? (call: AnyCall & ServerDuplexStream<object, object>) => {
          const done = observe(traceparentOf(call.metadata));
          const info = callInfo(call, draining);
          const answers = handler(requestStream ? received(call) : call.request, info) as AsyncIterable<object>;
          writeAll(call, answers, info.signal).then(
            () => {
              done("OK");
              call.end();
            },
            (thrown: unknown) => {
              done(thrown);
              call.emit("error", toStatus(thrown));
            },
          );
        }
      : (call: AnyCall & ServerReadableStream<object, object>, callback: sendUnaryData<object>) => {
          const done = observe(traceparentOf(call.metadata));
          (async (): Promise<object> =>
            (await handler(requestStream ? received(call) : call.request, callInfo(call, draining))) as object)().then(
            (response) => {
              done("OK");
              callback(null, response);
            },
            (thrown: unknown) => {
              done(thrown);
              callback(toStatus(thrown));
            },
          );
        };
    adapted[method] = adapter as UntypedServiceImplementation[string];
  }
  return adapted;
}

/** The caller's messages; a caller that goes away is CANCELLED, not a broken stream. */
async function* received(
  call: ServerReadableStream<object, object> | ServerDuplexStream<object, object>,
): AsyncIterable<object> {
  try {
    // A handler may stop reading early to answer an error: that must not destroy the call.
    for await (const message of call.iterator({ destroyOnReturn: false })) yield message as object;
  } catch (thrown) {
    if (call.cancelled) throw new MoevieError("CANCELLED", "The caller went away.", { cause: thrown });
    throw thrown;
  }
}

/** Writes every answer, waiting for drain: nothing is buffered beyond the transport's window. */
async function writeAll(
  call: ServerWritableStream<object, object>,
  answers: AsyncIterable<object>,
  signal: AbortSignal,
): Promise<void> {
  for await (const answer of answers) {
    if (signal.aborted) throw new MoevieError("CANCELLED", "The caller went away.");
    if (!call.write(answer)) await drained(call, signal);
  }
}

function drained(call: ServerWritableStream<object, object>, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const onDrain = (): void => {
      signal.removeEventListener("abort", onAbort);
      resolve();
    };
    const onAbort = (): void => {
      call.removeListener("drain", onDrain);
      reject(new MoevieError("CANCELLED", "The caller went away."));
    };
    call.once("drain", onDrain);
    signal.addEventListener("abort", onAbort, { once: true });
  });
}

function callInfo(call: AnyCall, draining: AbortSignal): CallInfo {
  const abort = new AbortController();
  call.on("cancelled", () => abort.abort(new MoevieError("CANCELLED", "The caller went away.")));
  const deadline = call.getDeadline();
  const tenant = call.metadata.get(TENANT_KEY)[0]?.toString();
  return {
    signal: abort.signal,
    draining,
    deadlineMs: typeof deadline === "number" ? deadline : deadline.getTime(),
    traceparent: traceparentOf(call.metadata),
    ...(tenant === undefined ? {} : { tenant }),
  };
}

function traceparentOf(metadata: Metadata): string | undefined {
  return metadata.get("traceparent")[0]?.toString();
}

function observer(
  service: string,
  method: string,
  { metrics, log, tracing }: GrpcServerOptions,
): (traceparent: string | undefined) => (outcome: unknown) => void {
  metrics.declare("moevie_rpc_requests_total", [{ rpc_service: service, method, code: "OK" }]);
  return (traceparent) => {
    const startMs = performance.now();
    metrics.shift("moevie_rpc_in_flight", { rpc_service: service }, 1);
    return (outcome) => {
      const error = outcome === "OK" ? undefined : asMoevieError(outcome);
      metrics.shift("moevie_rpc_in_flight", { rpc_service: service }, -1);
      metrics.add("moevie_rpc_requests_total", { rpc_service: service, method, code: error?.code ?? "OK" });
      metrics.observe(
        "moevie_rpc_duration_seconds",
        { rpc_service: service, method },
        (performance.now() - startMs) / 1000,
      );
      if (traceparent !== undefined) {
        const [startedAtMs, endedAtMs] = [startMs, performance.now()].map((ms) => performance.timeOrigin + ms);
        tracing?.record(`${service}/${method}`, traceparent, startedAtMs ?? 0, endedAtMs ?? 0);
      }
      if (error?.reason === "INTERNAL") log.error({ method, detail: error.detail, err: error.cause }, "call failed");
      else if (error !== undefined && error.reason !== "CANCELLED")
        log.debug({ method, reason: error.reason, detail: error.detail }, "call refused");
    };
  };
}
