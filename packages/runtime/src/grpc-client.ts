// The gRPC client edge: promise-style calls with AbortSignal, deadline and trace, errors as MoevieError. Never retries:
// who calls decides (one owner retries, nothing beneath it does).
import {
  Client,
  Metadata,
  credentials,
  type ClientDuplexStream,
  type MethodDefinition,
  type ServiceDefinition,
  type ServiceError,
} from "@grpc/grpc-js";
import { MoevieError, limit, protoDefinitions, type ServiceMethods } from "@moevie/contracts";
import { service as healthService } from "grpc-health-check";
import { BidiCall } from "./grpc-call.ts";
import { fromServiceError } from "./grpc-errors.ts";
import { pause } from "./pause.ts";
import type { Loose, ServiceKey } from "./grpc-server.ts";

export interface CallOptions {
  readonly signal?: AbortSignal | undefined;
  /** Milliseconds from now. */
  readonly timeoutMs: number;
  readonly traceparent?: string | undefined;
}

type MethodsOf<K extends ServiceKey, Kind> = {
  [M in keyof ServiceMethods[K]]: ServiceMethods[K][M] extends { kind: Kind } ? M : never;
}[keyof ServiceMethods[K]] &
  string;
type Req<K extends ServiceKey, M> = M extends keyof ServiceMethods[K]
  ? ServiceMethods[K][M] extends { request: infer Q }
    ? Loose<Q>
    : never
  : never;
type Res<K extends ServiceKey, M> = M extends keyof ServiceMethods[K]
  ? ServiceMethods[K][M] extends { response: infer S }
    ? S
    : never
  : never;

/** A connection to one service at one address. */
export class GrpcPeer<K extends ServiceKey> {
  readonly #client: Client;
  readonly #definition: ServiceDefinition;
  readonly #name: K;
  readonly address: string;

  /** A connection with calls that gives no sign of life for `silenceMs` is dropped: its calls end with PEER_UNAVAILABLE. */
  constructor(name: K, address: string, silenceMs: number = limit("silenceMsMax")) {
    this.#name = name;
    this.address = address;
    this.#definition = protoDefinitions()[name] as ServiceDefinition;
    this.#client = new Client(address, credentials.createInsecure(), {
      "grpc.max_receive_message_length": limit("grpcMessageBytesMax"),
      "grpc.max_send_message_length": limit("grpcMessageBytesMax"),
      "grpc-node.flow_control_window": 16 * 1024 * 1024,
      "grpc.initial_reconnect_backoff_ms": 50,
      "grpc.max_reconnect_backoff_ms": limit("connectRetryMsMax"),
      "grpc.keepalive_time_ms": silenceMs / 2,
      "grpc.keepalive_timeout_ms": silenceMs / 2,
      "grpc.service_config": JSON.stringify({ loadBalancingConfig: [{ round_robin: {} }] }),
    });
  }

  async unary<M extends MethodsOf<K, "unary">>(
    method: M,
    request: Req<K, M>,
    options: CallOptions,
  ): Promise<Res<K, M>> {
    const { path, requestSerialize, responseDeserialize } = this.#method(method);
    return (await this.#settle(
      (done) =>
        this.#client.makeUnaryRequest(
          path,
          requestSerialize,
          responseDeserialize,
          request as object,
          metadataOf(options),
          { deadline: deadlineOf(options) },
          done,
        ),
      options,
    )) as Res<K, M>;
  }

  /** Answers in order. Leaving the loop cancels the call. */
  async *bidi<M extends MethodsOf<K, "bidi">>(
    method: M,
    requests: AsyncIterable<Req<K, M>>,
    options: CallOptions,
  ): AsyncIterable<Res<K, M>> {
    options.signal?.throwIfAborted();
    const call = this.#duplex(method, options);
    void sendAll(call, requests as AsyncIterable<object>);
    const onAbort = (): void => call.cancel();
    options.signal?.addEventListener("abort", onAbort, { once: true });
    let ended = false;
    try {
      for await (const message of call) yield message as Res<K, M>;
      ended = true;
    } catch (thrown) {
      ended = true;
      throw this.#asError(thrown);
    } finally {
      options.signal?.removeEventListener("abort", onAbort);
      if (!ended) {
        call.on("error", () => undefined);
        call.cancel();
      }
    }
  }

  /** Opens a call that stays open for many messages; `timeoutMs` bounds its whole life. The caller ends or cancels it. */
  open<M extends MethodsOf<K, "bidi">>(
    method: M,
    options: Omit<CallOptions, "signal">,
  ): BidiCall<Req<K, M>, Res<K, M>> {
    return new BidiCall(this.#duplex(method, options), (thrown) => this.#asError(thrown));
  }

  /** Waits until the peer's health says SERVING; throws PEER_UNAVAILABLE that names it when `timeoutMs` is over. */
  async waitReady(options: CallOptions): Promise<void> {
    const endMs = performance.now() + options.timeoutMs;
    for (let pauseMs = 20; ; pauseMs = Math.min(pauseMs * 1.5, 250)) {
      if (options.signal?.aborted === true)
        throw new MoevieError("CANCELLED", `Waiting for ${this.#name} was cancelled.`);
      if (await this.#serving()) return;
      if (performance.now() > endMs)
        throw new MoevieError(
          "PEER_UNAVAILABLE",
          `${this.#name} at ${this.address} was not ready in ${Math.round(options.timeoutMs / 1000)} s.`,
        );
      await pause(pauseMs, options.signal);
    }
  }

  close(): void {
    this.#client.close();
  }

  #serving(): Promise<boolean> {
    const check = (healthService as ServiceDefinition)["Check"] as MethodDefinition<object, { status: string }>;
    return new Promise((resolve) => {
      this.#client.makeUnaryRequest(
        check.path,
        check.requestSerialize,
        check.responseDeserialize,
        { service: this.#name },
        new Metadata(),
        { deadline: Date.now() + 1000 },
        (error, response) => {
          resolve(error === null && response?.status === "SERVING");
        },
      );
    });
  }

  #method(name: string): MethodDefinition<object, object> {
    const method = this.#definition[name];
    if (method === undefined) throw new Error(`${this.#name} has no method ${name}`);
    return method as MethodDefinition<object, object>;
  }

  #settle(
    start: (done: (error: ServiceError | null, response?: object) => void) => { cancel(): void },
    options: CallOptions,
  ): Promise<object> {
    return new Promise((resolve, reject) => {
      options.signal?.throwIfAborted();
      const call = start((error, response) => {
        options.signal?.removeEventListener("abort", onAbort);
        if (error === null) resolve(response ?? {});
        else reject(fromServiceError(error, `${this.#name} at ${this.address}`));
      });
      const onAbort = (): void => call.cancel();
      options.signal?.addEventListener("abort", onAbort, { once: true });
    });
  }

  #duplex(method: MethodsOf<K, "bidi">, options: CallOptions): ClientDuplexStream<object, object> {
    const { path, requestSerialize, responseDeserialize } = this.#method(method);
    const deadline = deadlineOf(options);
    return this.#client.makeBidiStreamRequest(path, requestSerialize, responseDeserialize, metadataOf(options), {
      deadline,
    });
  }

  #asError(thrown: unknown): unknown {
    return isServiceError(thrown) ? fromServiceError(thrown, `${this.#name} at ${this.address}`) : thrown;
  }
}

function isServiceError(thrown: unknown): thrown is ServiceError {
  return thrown instanceof Error && "code" in thrown && "metadata" in thrown;
}

function metadataOf(options: CallOptions): Metadata {
  const metadata = new Metadata();
  if (options.traceparent !== undefined) metadata.set("traceparent", options.traceparent);
  return metadata;
}

function deadlineOf(options: CallOptions): number {
  return Date.now() + options.timeoutMs;
}

/** Sends every message, waiting for drain; an error of the source cancels the call. */
async function sendAll(call: ClientDuplexStream<object, object>, messages: AsyncIterable<object>): Promise<void> {
  let over = false;
  let goOn: (() => void) | undefined;
  // Once for the whole call: a long tensor waits for drain many times.
  call.on("drain", () => goOn?.());
  call.once("status", () => {
    over = true;
    goOn?.();
  });
  try {
    for await (const message of messages) {
      if (over) return;
      if (!call.write(message)) await new Promise<void>((resolve) => (goOn = resolve));
    }
    call.end();
  } catch {
    call.cancel();
  }
}
