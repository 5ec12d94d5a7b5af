// The router's end of the exchange: one persistent stream to one shard, reconnected with back-off. Sends requests within the
// shard's credit, matches answers by (call, layer, attempt), drops late ones. It never retries a request.
import { MoevieError, limit } from "@moevie/contracts";
import { parseAddress, pause } from "@moevie/runtime";
import { decodeError, decodeHolds, rowsAt, wholeBytes } from "./body.ts";
import type { Holds } from "./body.ts";
import { BufferPool } from "./buffer-pool.ts";
import { openSocket } from "./byte-socket.ts";
import { ClientCredit } from "./client-credit.ts";
import { ClientSegment } from "./client-segment.ts";
import { ExchangeDeadline } from "./deadline.ts";
import { exchangeError } from "./exchange-error.ts";
import { FrameReader } from "./frame-reader.ts";
import { FrameFlag, FrameKind, WireType, frameHeader } from "./frame.ts";
import type { FrameHeader } from "./frame.ts";
import { H2Connection } from "./h2-connection.ts";
import type { H2Stream } from "./h2-stream.ts";
import { EXCHANGE_PATH, GRPC_CONTENT_TYPE, smallMessage } from "./link.ts";
import { encodeRequest, messageBytes, requestBytes, requestRowsBytes } from "./request.ts";
import type { ExchangeOptions } from "./request.ts";
import type { SegmentPart } from "./segment-space.ts";
import { startTimer } from "./timer.ts";
import { unpackRows } from "./wire-rows.ts";
import { WireTime, monotonicUs } from "./wire-time.ts";

export interface ExchangePartial {
  /** [n, d] weighted sums, rows in the order of the request. Valid until `release`. */
  readonly partial: Float32Array;
  /** Time the request waited here for the shard's credit. */
  readonly creditUs: number;
  /** Time from then until the request was whole at the shard; undefined where the shard does not say (one of an older version). */
  readonly upUs: number | undefined;
  readonly queueUs: number;
  readonly computeUs: number;
  readonly bytesOut: number;
  readonly bytesIn: number;
  readonly release: () => void;
}

export interface ExchangeConnectOptions {
  /** Called whenever the shard becomes usable, unusable or holds something else. */
  readonly onChange?: () => void;
  /** Told of an answer that came after its deadline or for another attempt, and is dropped. */
  readonly onLateAnswer?: () => void;
  /** Folder of memory for segments, where a shard on a socket file takes one; without it rows go by the socket. */
  readonly segmentFolder?: string | undefined;
  /** Told why there is no segment where one could be: rows go by the socket. */
  readonly onNoSegment?: (why: string) => void;
}

/** What rows go by. */
export type ExchangePath = "tcp" | "unix" | "segment";

type LinkState =
  | { readonly kind: "down" }
  | { readonly kind: "ready"; readonly stream: H2Stream; readonly holds: Holds }
  | { readonly kind: "closed" };

interface Pending {
  readonly layer: number;
  readonly attempt: number;
  readonly n: number;
  readonly d: number;
  readonly startMs: number;
  readonly creditUs: number;
  readonly sentUs: number;
  readonly bytesOut: number;
  /** Where the request's rows lie and the answer's will. */
  readonly placed: Placed | undefined;
  readonly finish: (outcome: ExchangePartial | MoevieError) => void;
}

interface Placed {
  readonly segment: ClientSegment;
  readonly part: SegmentPart;
}

const BACKOFF_FIRST_MS = 20;
const EXCHANGE_HEADERS = [
  [":method", "POST"],
  [":scheme", "http"],
  [":path", EXCHANGE_PATH],
  [":authority", "localhost"],
  ["content-type", GRPC_CONTENT_TYPE],
  ["te", "trailers"],
] as const;
const ANSWER_POOL_BYTES_MAX = limit("frameBytesMax");

/** Starts connecting; it goes on until `close`. */
export function connectExchange(address: string, options: ExchangeConnectOptions = {}): ExchangeClient {
  return new ExchangeClient(address, options);
}

export class ExchangeClient {
  readonly address: string;
  readonly #onChange: () => void;
  readonly #onLateAnswer: () => void;
  readonly #onNoSegment: (why: string) => void;
  readonly #closing = new AbortController();
  readonly #pending = new Map<number, Pending>();
  readonly #deadline = new ExchangeDeadline();
  readonly #wireTime: WireTime;
  readonly #pool = new BufferPool(ANSWER_POOL_BYTES_MAX);
  readonly #segmentFolder: string | undefined;
  #segment: ClientSegment | undefined;
  /** The stream that was offered one. */
  #offered: H2Stream | undefined;
  #credit = new ClientCredit();
  #state: LinkState = { kind: "down" };
  #connection: H2Connection | undefined;
  #nextCall = 1;

  constructor(address: string, options: ExchangeConnectOptions) {
    const { kind } = parseAddress(address, "shard address");
    this.address = address;
    this.#wireTime = new WireTime(kind === "unix");
    this.#segmentFolder = kind === "unix" ? options.segmentFolder : undefined;
    this.#onChange = options.onChange ?? ((): void => undefined);
    this.#onLateAnswer = options.onLateAnswer ?? ((): void => undefined);
    this.#onNoSegment = options.onNoSegment ?? ((): void => undefined);
    void this.#keepConnected();
  }

  /** What the shard holds, or undefined while it cannot be used. */
  holds(): Holds | undefined {
    return this.#state.kind === "ready" ? this.#state.holds : undefined;
  }

  get path(): ExchangePath {
    if (this.#segment?.isProven === true) return "segment";
    return this.address.startsWith("unix:") ? "unix" : "tcp";
  }

  /** Sends rows and waits for their weighted sums. Throws a MoevieError; whether to send elsewhere is the caller's choice. */
  async exchange(options: ExchangeOptions): Promise<ExchangePartial> {
    // Whole denoisers take as long as their latent is large: no other exchange tells how long.
    const usualMs = options.unit !== undefined ? Infinity : this.#deadline.deadlineMs;
    const timeoutMs = Math.max(1, Math.ceil(Math.min(options.timeoutMs, usualMs)));
    const startMs = performance.now();
    const state = this.#state;
    if (state.kind !== "ready") throw exchangeError("PEER_UNAVAILABLE", `shard ${this.address} is not connected`);
    if (options.signal?.aborted === true) throw exchangeError("CANCELLED", "the exchange was cancelled");
    const bytes = requestBytes(options);
    if (!this.#credit.take(bytes)) await this.#credit.wait(bytes, timeoutMs, options.signal);
    const waitedMs = performance.now() - startMs;
    const [creditUs, sentUs] = [waitedMs * 1000, monotonicUs()];
    const leftMs = Math.max(1, Math.ceil(timeoutMs - waitedMs));
    const call = this.#nextCall++;
    const placed = this.#place(options);
    const buffer = this.#pool.take(messageBytes(options, placed !== undefined));
    const place = placed && { buffer: placed.segment.buffer, at: placed.part.at };
    const message = encodeRequest(buffer, options, { call, timeoutMs: leftMs, place });
    const bytesOut = message.length + (placed === undefined ? 0 : requestRowsBytes(options));
    return new Promise((resolve, reject) => {
      const finish = (outcome: ExchangePartial | MoevieError): void => {
        stopTimer();
        options.signal?.removeEventListener("abort", onAbort);
        this.#pending.delete(call);
        if (outcome instanceof MoevieError) reject(outcome);
        else resolve(outcome);
      };
      const leave = (error: MoevieError): void => {
        if (placed !== undefined) placed.segment.leave(call, placed.part);
        finish(error);
      };
      const onAbort = (): void => leave(exchangeError("CANCELLED", "the exchange was cancelled"));
      const stopTimer = startTimer(leftMs, () => {
        this.#deadline.observe(performance.now() - startMs);
        leave(
          exchangeError("DEADLINE", `shard ${this.address} did not answer layer ${options.layer} in ${timeoutMs} ms`),
        );
      });
      options.signal?.addEventListener("abort", onAbort, { once: true });
      const { layer, attempt, d, rows } = options;
      this.#pending.set(call, {
        layer,
        attempt,
        n: rows.length,
        d,
        startMs,
        creditUs,
        sentUs,
        bytesOut,
        placed,
        finish,
      });
      state.stream.write([message], () => this.#pool.give(buffer));
      if (state.stream.closed) leave(exchangeError("PEER_UNAVAILABLE", `shard ${this.address} went away`));
    });
  }

  #place(options: ExchangeOptions): Placed | undefined {
    const segment = this.#segment;
    const bytes = requestRowsBytes(options);
    const part = bytes > 0 ? segment?.take(bytes) : undefined;
    return segment === undefined || part === undefined ? undefined : { segment, part };
  }

  close(): void {
    this.#drop(exchangeError("DRAINING", "the exchange was closed"));
    this.#state = { kind: "closed" };
    this.#closing.abort();
    this.#connection?.destroy();
  }

  async #keepConnected(): Promise<void> {
    let backoffMs = BACKOFF_FIRST_MS;
    while (!this.#closing.signal.aborted) {
      const wasReady = await this.#connectOnce();
      if (this.#closing.signal.aborted) return;
      backoffMs = wasReady ? BACKOFF_FIRST_MS : Math.min(backoffMs * 2, limit("connectRetryMsMax"));
      await pause(backoffMs, this.#closing.signal).catch(() => undefined);
    }
  }

  /** Holds one stream until it ends; says whether it ever was usable. */
  #connectOnce(): Promise<boolean> {
    return new Promise((resolve) => {
      let wasReady = false;
      const connection = new H2Connection({
        role: "client",
        onClose: () => {
          this.#drop(exchangeError("PEER_UNAVAILABLE", `the stream to shard ${this.address} ended`));
          resolve(wasReady);
        },
      });
      this.#connection = connection;
      this.#credit = new ClientCredit();
      const reader = new FrameReader({
        allocate: (header) => this.#allocate(header),
        frame: (header, body) => {
          wasReady = true;
          this.#frame(stream, header, body);
        },
      });
      connection.start(openSocket(parseAddress(this.address, "shard address"), connection.parser));
      const stream = connection.request(EXCHANGE_HEADERS, {
        target: () => reader.target(),
        advance: (bytes) => reader.advance(bytes),
        refuse: () => connection.destroy(),
        headers: () => undefined,
        end: () => connection.destroy(),
        close: () => connection.destroy(),
      });
      stream.write([smallMessage(frameHeader(FrameKind.hello))]);
    });
  }

  #allocate(header: FrameHeader): Uint8Array {
    const large = header.kind === FrameKind.partial;
    return large ? new Uint8Array(this.#pool.take(header.bodyBytes)) : new Uint8Array(header.bodyBytes);
  }

  #frame(stream: H2Stream, header: FrameHeader, body: Uint8Array): void {
    switch (header.kind) {
      case FrameKind.holds:
        this.#state = { kind: "ready", stream, holds: decodeHolds(header, asBuffer(body)) };
        if ((header.flags & FrameFlag.segment) !== 0 && this.#segmentFolder !== undefined)
          void this.#offerSegment(stream, this.#segmentFolder);
        this.#onChange();
        return;
      case FrameKind.segment:
        this.#proveSegment(body);
        this.#onChange();
        return;
      case FrameKind.grant:
        if ((header.flags & FrameFlag.recall) === 0) this.#credit.grant(header.creditBytes);
        else {
          const given = this.#credit.giveBack(header.creditBytes);
          if (given > 0) stream.write([smallMessage(frameHeader(FrameKind.grant, { creditBytes: given }))]);
        }
        return;
      case FrameKind.partial:
      case FrameKind.error:
        this.#credit.grant(header.creditBytes);
        this.#settle(header, body);
        return;
      default:
        throw exchangeError("INVALID_FIELD", `a shard does not send frames of kind ${header.kind}`);
    }
  }

  /** Offers a segment once a connection. Where none can be made, rows go by the socket. */
  async #offerSegment(stream: H2Stream, folder: string): Promise<void> {
    if (this.#offered === stream) return;
    this.#offered = stream;
    const segment = await ClientSegment.offer(folder).catch((thrown: unknown) => {
      this.#onNoSegment(thrown instanceof Error ? thrown.message : String(thrown));
    });
    if (segment === undefined) return;
    if (stream.closed || this.#offered !== stream) {
      segment.close();
      return;
    }
    this.#segment = segment;
    stream.write([smallMessage(frameHeader(FrameKind.segment), segment.offer)]);
  }

  #proveSegment(answer: Uint8Array): void {
    this.#segment?.prove(answer);
    if (this.#segment?.isProven === true) return;
    if (this.#segment !== undefined) this.#onNoSegment("the shard did not take it");
    this.#segment?.close();
    this.#segment = undefined;
  }

  #settle(header: FrameHeader, body: Uint8Array): void {
    const pending = this.#pending.get(header.call);
    const giveBody = (): void => this.#pool.give(body.buffer as ArrayBuffer);
    if (pending === undefined || pending.layer !== header.layer || pending.attempt !== header.attempt) {
      this.#onLateAnswer();
      this.#segment?.arrived(header.call);
      giveBody();
      return;
    }
    const { placed } = pending;
    if (header.kind === FrameKind.error) {
      if (placed !== undefined) placed.segment.give(placed.part);
      const { reason, message } = decodeError(asBuffer(body));
      pending.finish(new MoevieError(reason, message));
      return;
    }
    const isPlaced = (header.flags & FrameFlag.segment) !== 0;
    if (isPlaced && placed === undefined)
      throw exchangeError("INVALID_FIELD", "a shard answers in the segment what came by the socket");
    const release = (): void => {
      if (placed !== undefined) placed.segment.give(placed.part);
      giveBody();
    };
    this.#deadline.observe(performance.now() - pending.startMs);
    if (header.n !== pending.n || header.d !== pending.d) {
      release();
      pending.finish(
        exchangeError(
          "INTERNAL",
          `shard ${this.address} answered [${header.n}, ${header.d}] for [${pending.n}, ${pending.d}]`,
        ),
      );
      return;
    }
    const { queueUs, computeUs, arrivedUs } = header;
    const { creditUs, sentUs, bytesOut } = pending;
    const passage = { sentUs, arrivedUs, heldUs: queueUs + computeUs, answeredUs: monotonicUs() };
    const upUs = (header.flags & FrameFlag.clock) === 0 ? undefined : this.#wireTime.upUs(passage);
    const facts = { creditUs, upUs, queueUs, computeUs, bytesOut, bytesIn: wholeBytes(header) };
    const place =
      isPlaced && placed !== undefined
        ? { buffer: placed.segment.buffer, at: placed.part.at }
        : { buffer: body.buffer, at: rowsAt(header) };
    pending.finish({ ...this.#widen(header, place, release), ...facts });
  }

  #widen(
    { n, d, rowsType }: FrameHeader,
    { buffer, at }: { readonly buffer: ArrayBufferLike; readonly at: number },
    release: () => void,
  ): { partial: Float32Array; release: () => void } {
    if (rowsType === WireType.f32) return { partial: new Float32Array(buffer, at, n * d), release };
    const wide = this.#pool.take(n * d * 4);
    const partial = new Float32Array(wide, 0, n * d);
    unpackRows(buffer, at, rowsType, n * d, partial);
    release();
    return { partial, release: () => this.#pool.give(wide) };
  }

  #drop(error: MoevieError): void {
    const wasReady = this.#state.kind === "ready";
    if (this.#state.kind !== "closed") this.#state = { kind: "down" };
    this.#credit.fail(error);
    for (const { placed, finish } of this.#pending.values()) {
      if (placed !== undefined) placed.segment.give(placed.part);
      finish(error);
    }
    this.#segment?.close();
    this.#segment = undefined;
    this.#offered = undefined;
    if (wasReady) this.#onChange();
  }
}

function asBuffer(body: Uint8Array): Buffer {
  return Buffer.from(body.buffer, body.byteOffset, body.byteLength);
}
