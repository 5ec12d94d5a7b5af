// The typed way to call moevie from code: VideoService and google.longrunning.Operations over one channel.
// Errors are MoevieError with reason, violations and retry delay. Only watchVideo repeats a call by itself: it resumes.
import { Client, Metadata, credentials, type ClientReadableStream, type ServiceError } from "@grpc/grpc-js";
import type { ChannelCredentials, MethodDefinition, ServiceDefinition } from "@grpc/grpc-js";
import {
  MoevieError,
  PAGE_SIZE,
  STATUS_DETAILS_KEY,
  VIDEO_NUMBERS,
  checkFields,
  decodeStatusDetails,
  limit,
  protoDefinitions,
  wrongNumber,
  type ListVideosResponse,
  type NumberRule,
  type Operation,
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
export interface VideoClientOptions {
  /** Default: plaintext. */
  readonly credentials?: ChannelCredentials;
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
/** States after which nothing follows. */
const LAST_STATES: ReadonlySet<string> = new Set([
  "VIDEO_STATE_COMPLETED",
  "VIDEO_STATE_FAILED",
  "VIDEO_STATE_CANCELLED",
]);

/** A connection to a moevie server at HOST:PORT or unix:PATH. Close it when done. */
export class VideoClient {
  readonly #client: Client;
  readonly #address: string;

  constructor(address: string, options: VideoClientOptions = {}) {
    this.#address = address;
    this.#client = new Client(address, options.credentials ?? credentials.createInsecure(), {
      "grpc.max_receive_message_length": limit("grpcMessageBytesMax"),
      "grpc.initial_reconnect_backoff_ms": 100,
      "grpc.max_reconnect_backoff_ms": limit("connectRetryMsMax"),
    });
  }

  /** Submits a prompt; fields left out get the server's defaults. The same requestId with the same spec is one job. */
  async createVideo(
    spec: Partial<VideoSpec>,
    options: CallOptions & { readonly requestId?: string; readonly validateOnly?: boolean } = {},
  ): Promise<Operation> {
    // Checked here, too: the wire's types would turn -1, 1.5 and NaN into other numbers.
    checkFields(
      Object.entries(VIDEO_NUMBERS).flatMap(([name, rule]) =>
        wrongNumber(`spec.${name}`, spec[name as keyof VideoSpec], rule),
      ),
    );
    const request = { spec, requestId: options.requestId ?? "", validateOnly: options.validateOnly ?? false };
    return await this.#unary("moevie.v1.VideoService", "CreateVideo", request, options);
  }

  /** The video as it is now. Throws VIDEO_NOT_FOUND. */
  getVideo(name: string, options: CallOptions = {}): Promise<Video> {
    return this.#unary("moevie.v1.VideoService", "GetVideo", { name }, options);
  }

  /** One page, newest first; an empty nextPageToken is the end. */
  async listVideos(
    page: { readonly pageSize?: number | undefined; readonly pageToken?: string | undefined } = {},
    options: CallOptions = {},
  ): Promise<ListVideosResponse> {
    checkFields(wrongNumber("page_size", page.pageSize, PAGE_SIZE));
    const request = { pageSize: page.pageSize ?? 0, pageToken: page.pageToken ?? "" };
    return await this.#unary("moevie.v1.VideoService", "ListVideos", request, options);
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
    for (let failures = 0; ;) {
      try {
        for await (const event of this.#stream("WatchVideo", { name, cursor }, options)) {
          failures = 0;
          if (event.cursor !== "") cursor = event.cursor;
          yield event;
          if (LAST_STATES.has(event.state)) return;
        }
        failures++;
      } catch (thrown) {
        const again = thrown instanceof MoevieError && thrown.code === "UNAVAILABLE";
        if (!again || ++failures > RESUME_ATTEMPTS_MAX) throw thrown;
      }
      if (failures > RESUME_ATTEMPTS_MAX)
        throw new MoevieError("PEER_UNAVAILABLE", `The watch of ${name} kept ending.`);
      await pauseBeforeResume(RESUME_PAUSE_MS * failures, options.signal);
    }
  }

  /** The finished MP4, chunk by chunk. Throws VIDEO_NOT_READY before it is finished. */
  async *downloadVideo(name: string, options: CallOptions = {}): AsyncIterable<Buffer> {
    for await (const { chunk } of this.#stream("DownloadVideo", { name }, options)) yield chunk;
  }

  close(): void {
    this.#client.close();
  }

  #unary<K extends ServiceKey, M extends keyof ServiceMethods[K] & string>(
    service: K,
    method: M,
    request: object,
    options: CallOptions,
  ): Promise<Answer<K, M>> {
    const { path, requestSerialize, responseDeserialize } = methodOf(service, method);
    const deadline = Date.now() + (options.timeoutMs ?? ANSWER_MS_MAX);
    return new Promise((resolve, reject) => {
      if (options.signal?.aborted === true) return reject(cancelled());
      const call = this.#client.makeUnaryRequest(
        path,
        requestSerialize,
        responseDeserialize,
        request,
        new Metadata(),
        { deadline },
        (error, response) => {
          options.signal?.removeEventListener("abort", onAbort);
          if (error === null) resolve((response ?? {}) as Answer<K, M>);
          else reject(explain(error, this.#address));
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
    const call: ClientReadableStream<object> = this.#client.makeServerStreamRequest(
      path,
      requestSerialize,
      responseDeserialize,
      request,
      new Metadata(),
      deadline,
    );
    const onAbort = (): void => call.cancel();
    options.signal?.addEventListener("abort", onAbort, { once: true });
    let ended = false;
    try {
      for await (const message of call) yield message as Answer<"moevie.v1.VideoService", M>;
      ended = true;
    } catch (thrown) {
      ended = true;
      throw isServiceError(thrown) ? explain(thrown, this.#address) : thrown;
    } finally {
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

function pauseBeforeResume(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => {
      clearTimeout(timer);
      reject(cancelled());
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", onAbort);
      resolve();
    }, ms);
    signal?.addEventListener("abort", onAbort, { once: true });
  });
}
