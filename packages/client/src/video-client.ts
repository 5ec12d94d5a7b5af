// The typed way to call moevie from code: VideoService and google.longrunning.Operations over one channel.
// Errors are MoevieError with reason, violations and retry delay. Only watchVideo repeats a call by itself: it resumes.
import { setTimeout as sleep } from "node:timers/promises";
import {
  Client,
  Metadata,
  connectivityState,
  credentials,
  status,
  type ClientReadableStream,
  type ServiceError,
} from "@grpc/grpc-js";
import type { ChannelCredentials, MethodDefinition, ServiceDefinition } from "@grpc/grpc-js";
import {
  DEADLINE_SECONDS,
  MoevieError,
  PAGE_SIZE,
  PRIORITIES,
  QUALITIES,
  STATUS_DETAILS_KEY,
  TENANT_ALLOWED,
  TENANT_KEY,
  VIDEO_NUMBERS,
  checkFields,
  decodeStatusDetails,
  isTenant,
  limit,
  protoDefinitions,
  qualityName,
  violation,
  writtenName,
  wrongNumber,
  type ListVideosResponse,
  type NumberRule,
  type Operation,
  type PriorityName,
  type ServiceMethods,
  type Video,
  type VideoEvent,
  type VideoSpec,
} from "@moevie/contracts";

export interface CallOptions {
  readonly signal?: AbortSignal;
  /** Milliseconds from now; default 30 s for answers, none for streams. */
  readonly timeoutMs?: number;
}
export interface CreateOptions {
  readonly requestId?: string;
  readonly validateOnly?: boolean;
  /** Among the tenant's own videos. Default "normal". */
  readonly priority?: PriorityName;
  /** Seconds from now after which the video fails with DEADLINE. Default: none. */
  readonly deadlineSeconds?: number;
}
export interface VideoClientOptions {
  /** Default: plaintext. */
  readonly credentials?: ChannelCredentials;
  /** Whose calls these are, for a server that is told so by nothing else. Default: the server's "default". */
  readonly tenant?: string;
  /** Milliseconds without a sign of life after which a connection or a watch counts as dead; default 30 s. */
  readonly silenceMs?: number;
}

type ServiceKey = "moevie.v1.VideoService" | "google.longrunning.Operations";
type Answer<K extends ServiceKey, M extends keyof ServiceMethods[K]> = ServiceMethods[K][M] extends {
  response: infer S;
}
  ? S
  : never;

const ANSWER_MS_MAX = 30_000;
const WAIT_MS: NumberRule = { min: 0, max: limit("operationWaitMsMax"), note: " ms" };
const RESUME_ATTEMPTS_MAX = 8;
const RESUME_PAUSE_MS = 250;
/** A watch gives its server up when it has been silent for this many silences. */
const RESUME_SILENCES_MAX = 3;
/** States after which nothing follows. */
const LAST_STATES: ReadonlySet<string> = new Set([
  "VIDEO_STATE_COMPLETED",
  "VIDEO_STATE_FAILED",
  "VIDEO_STATE_CANCELLED",
]);

/** A connection to a moevie server at HOST:PORT or unix:PATH. Close it when done. */
export class VideoClient {
  readonly #address: string;
  readonly #credentials: ChannelCredentials;
  readonly #silenceMs: number;
  readonly #tenant: string | undefined;
  #client: Client;
  #closed = false;

  constructor(address: string, options: VideoClientOptions = {}) {
    this.#address = address;
    this.#credentials = options.credentials ?? credentials.createInsecure();
    this.#tenant = options.tenant;
    if (options.tenant !== undefined && !isTenant(options.tenant))
      checkFields([violation("tenant", options.tenant, TENANT_ALLOWED)]);
    this.#silenceMs = options.silenceMs ?? limit("silenceMsMax");
    this.#client = this.#connection();
  }

  #connection(): Client {
    return new Client(this.#address, this.#credentials, {
      "grpc.max_receive_message_length": limit("grpcMessageBytesMax"),
      "grpc.initial_reconnect_backoff_ms": 100,
      "grpc.max_reconnect_backoff_ms": limit("connectRetryMsMax"),
      "grpc.keepalive_time_ms": this.#silenceMs / 2,
      "grpc.keepalive_timeout_ms": this.#silenceMs / 2,
      // Otherwise a new client takes the connection of the one it replaces.
      "grpc.use_local_subchannel_pool": 1,
    });
  }

  /** The calls to come go over a new connection: this one gave no sign of life. Calls that still run on it may end. */
  #replace(client: Client): void {
    if (this.#closed || this.#client !== client) return;
    this.#client = this.#connection();
    client.close();
  }

  /** Submits a prompt; fields left out get the server's defaults. The same requestId with the same spec is one job. */
  async createVideo(spec: Partial<VideoSpec>, options: CallOptions & CreateOptions = {}): Promise<Operation> {
    // Checked here, too: the wire's types would turn -1, 1.5 and NaN into other numbers, and a quality they do not know into none.
    checkFields([
      ...Object.entries(VIDEO_NUMBERS).flatMap(([name, rule]) =>
        wrongNumber(`spec.${writtenName(name)}`, spec[name as keyof VideoSpec], rule),
      ),
      ...(qualityName(spec.quality) === undefined
        ? [violation("spec.quality", spec.quality, Object.values(QUALITIES).join(", "))]
        : []),
      ...wrongNumber("deadline_seconds", options.deadlineSeconds, DEADLINE_SECONDS),
    ]);
    const { requestId = "", validateOnly = false, priority = "normal", deadlineSeconds } = options;
    const deadline = deadlineSeconds === undefined ? {} : { deadlineSeconds };
    const request = { spec, requestId, validateOnly, priority: PRIORITIES[priority], ...deadline };
    return await this.#unary("moevie.v1.VideoService", "CreateVideo", request, options);
  }

  /** The video as it is now. Throws VIDEO_NOT_FOUND. */
  getVideo(name: string, options: CallOptions = {}): Promise<Video> {
    return this.#unary("moevie.v1.VideoService", "GetVideo", { name }, options);
  }

  /** One page, newest first; an empty nextPageToken is the end. */
  async listVideos(
    page: {
      readonly pageSize?: number | undefined;
      readonly pageToken?: string | undefined;
      readonly deadOnly?: boolean;
    } = {},
    options: CallOptions = {},
  ): Promise<ListVideosResponse> {
    checkFields(wrongNumber("page_size", page.pageSize, PAGE_SIZE));
    const { pageSize = 0, pageToken = "", deadOnly = false } = page;
    const request = { pageSize, pageToken, deadOnly };
    return await this.#unary("moevie.v1.VideoService", "ListVideos", request, options);
  }

  /** Queues a video again that failed for no fault of its caller. Throws VIDEO_NOT_DEAD, QUEUE_FULL and TENANT_QUEUE_FULL. */
  retryVideo(name: string, options: CallOptions = {}): Promise<Video> {
    return this.#unary("moevie.v1.VideoService", "RetryVideo", { name }, options);
  }

  /** Cancels the work if it runs and removes record and file. */
  async deleteVideo(name: string, options: CallOptions = {}): Promise<void> {
    await this.#unary("moevie.v1.VideoService", "DeleteVideo", { name }, options);
  }

  /** Asks for the end of the work; the video's state tells when it was felt. */
  async cancelVideo(name: string, options: CallOptions = {}): Promise<void> {
    await this.#unary("google.longrunning.Operations", "CancelOperation", { name: operationName(name) }, options);
  }

  getOperation(name: string, options: CallOptions = {}): Promise<Operation> {
    return this.#unary("google.longrunning.Operations", "GetOperation", { name: operationName(name) }, options);
  }

  /** Waits on the server until the work ended or `waitMs` is over; look at `done`. */
  async waitOperation(name: string, waitMs: number, options: CallOptions = {}): Promise<Operation> {
    checkFields(wrongNumber("timeout", waitMs, WAIT_MS));
    const timeout = { seconds: Math.floor(waitMs / 1000), nanos: Math.floor((waitMs % 1000) * 1_000_000) };
    const request = { name: operationName(name), timeout };
    return await this.#unary("google.longrunning.Operations", "WaitOperation", request, {
      timeoutMs: waitMs + ANSWER_MS_MAX,
      ...options,
    });
  }

  /** Every event from `cursor` on, live, to the last state. A stream that breaks is taken up again where it was. */
  async *watchVideo(name: string, options: CallOptions & { readonly cursor?: string } = {}): AsyncIterable<VideoEvent> {
    let cursor = options.cursor ?? "";
    let heardMs = performance.now();
    for (let failures = 0; ;) {
      try {
        for await (const event of this.#stream("WatchVideo", { name, cursor }, options)) {
          failures = 0;
          if (event.cursor !== "") cursor = event.cursor;
          yield event;
          heardMs = performance.now();
          if (LAST_STATES.has(event.state)) return;
        }
        failures++;
      } catch (thrown) {
        const again = thrown instanceof MoevieError && thrown.code === "UNAVAILABLE";
        const silentMs = performance.now() - heardMs;
        if (!again || ++failures > RESUME_ATTEMPTS_MAX || silentMs >= this.#silenceMs * RESUME_SILENCES_MAX)
          throw thrown;
      }
      if (failures > RESUME_ATTEMPTS_MAX)
        throw new MoevieError("PEER_UNAVAILABLE", `The watch of ${name} kept ending.`);
      await sleep(RESUME_PAUSE_MS * failures, undefined, { signal: options.signal }).catch(() => {
        throw cancelled();
      });
    }
  }

  /** The finished MP4, chunk by chunk. Throws VIDEO_NOT_READY before it is finished. */
  async *downloadVideo(name: string, options: CallOptions = {}): AsyncIterable<Buffer> {
    for await (const { chunk } of this.#stream("DownloadVideo", { name }, options)) yield chunk;
  }

  close(): void {
    this.#closed = true;
    this.#client.close();
  }

  #metadata(): Metadata {
    const metadata = new Metadata();
    if (this.#tenant !== undefined) metadata.set(TENANT_KEY, this.#tenant);
    return metadata;
  }

  #unary<K extends ServiceKey, M extends keyof ServiceMethods[K] & string>(
    service: K,
    method: M,
    request: object,
    options: CallOptions,
  ): Promise<Answer<K, M>> {
    const { path, requestSerialize, responseDeserialize } = methodOf(service, method);
    const deadline = Date.now() + (options.timeoutMs ?? ANSWER_MS_MAX);
    const client = this.#client;
    return new Promise((resolve, reject) => {
      if (options.signal?.aborted === true) return reject(cancelled());
      const call = client.makeUnaryRequest(
        path,
        requestSerialize,
        responseDeserialize,
        request,
        this.#metadata(),
        { deadline },
        (error, response) => {
          options.signal?.removeEventListener("abort", onAbort);
          if (error === null) resolve((response ?? {}) as Answer<K, M>);
          else reject(explain(error, this.#address));
          const connecting = client.getChannel().getConnectivityState(false) === connectivityState.CONNECTING;
          if (connecting && error?.code === status.DEADLINE_EXCEEDED) this.#replace(client);
        },
      );
      const onAbort = (): void => call.cancel();
      options.signal?.addEventListener("abort", onAbort, { once: true });
    });
  }

  async *#stream<M extends "WatchVideo" | "DownloadVideo">(
    method: M,
    request: object,
    options: CallOptions,
  ): AsyncIterable<Answer<"moevie.v1.VideoService", M>> {
    if (options.signal?.aborted === true) throw cancelled();
    const { path, requestSerialize, responseDeserialize } = methodOf("moevie.v1.VideoService", method);
    const deadline = options.timeoutMs === undefined ? {} : { deadline: Date.now() + options.timeoutMs };
    const client = this.#client;
    const call: ClientReadableStream<object> = client.makeServerStreamRequest(
      path,
      requestSerialize,
      responseDeserialize,
      request,
      this.#metadata(),
      deadline,
    );
    const onAbort = (): void => call.cancel();
    options.signal?.addEventListener("abort", onAbort, { once: true });
    let ended = false;
    let silent = false;
    const onSilence = (): void => {
      silent = true;
      call.cancel();
    };
    let silence = setTimeout(onSilence, this.#silenceMs);
    try {
      for await (const message of call) {
        clearTimeout(silence);
        yield message as Answer<"moevie.v1.VideoService", M>;
        // A watch has heartbeats. A download that began is left to keep-alive: a slow line takes its time for a chunk.
        if (method === "WatchVideo") silence = setTimeout(onSilence, this.#silenceMs);
      }
      ended = true;
    } catch (thrown) {
      ended = true;
      if (silent) {
        this.#replace(client);
        const text = `The server at ${this.#address} was silent for ${this.#silenceMs / 1000} s.`;
        throw new MoevieError("PEER_UNAVAILABLE", text, { cause: thrown });
      }
      throw isServiceError(thrown) ? explain(thrown, this.#address) : thrown;
    } finally {
      clearTimeout(silence);
      options.signal?.removeEventListener("abort", onAbort);
      if (!ended) {
        call.on("error", () => undefined);
        call.cancel();
      }
    }
  }
}

function operationName(name: string): string {
  return name.replace(/^videos\//, "operations/");
}

function methodOf(service: ServiceKey, name: string): MethodDefinition<object, object> {
  const method = (protoDefinitions()[service] as ServiceDefinition)[name];
  if (method === undefined) throw new Error(`${service} has no method ${name}`);
  return method as MethodDefinition<object, object>;
}

function cancelled(): MoevieError {
  return new MoevieError("CANCELLED", "The call was cancelled.");
}

function isServiceError(thrown: unknown): thrown is ServiceError {
  return thrown instanceof Error && "code" in thrown && "metadata" in thrown;
}

/** No server at the address says so plainly; everything else speaks for itself. */
function explain(error: ServiceError, address: string): MoevieError {
  const [packed] = error.metadata?.get(STATUS_DETAILS_KEY) ?? [];
  const details = packed instanceof Buffer ? packed : undefined;
  const nobody =
    details === undefined &&
    /No connection established|ECONNREFUSED|ENOENT|Failed to connect|Name resolution/i.test(error.details);
  const text = nobody ? `No moevie server answers at ${address}.` : error.details;
  return decodeStatusDetails({ code: error.code, text, details, peer: address, cause: error });
}
