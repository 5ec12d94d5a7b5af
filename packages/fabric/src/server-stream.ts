// One router's stream at a shard: reads requests into shared buffers, checks credit, epoch and experts, writes answers.
import { GRPC_CODE, asMoevieError } from "@moevie/contracts";
import {
  decodeExpertRows,
  decodeUnit,
  elementBytes,
  encodeError,
  encodeHolds,
  SEGMENT_PLACE_BYTES,
  partialLayout,
  placeRows,
  readPlace,
  rowsAt,
  rowsBytes,
  wholeBytes,
} from "./body.ts";
import type { Asked, DenoiserUnit, ExpertRows } from "./body.ts";
import type { CreditOrder } from "./credit-ledger.ts";
import { exchangeError } from "./exchange-error.ts";
import { FrameReader } from "./frame-reader.ts";
import { FrameFlag, FrameKind, UnitType, WireType, frameHeader } from "./frame.ts";
import type { FrameHeader } from "./frame.ts";
import type { H2Stream, H2StreamSink } from "./h2-stream.ts";
import { BODY_OFFSET, RESPONSE_HEADERS, grpcTrailers, smallMessage, writeHead } from "./link.ts";
import type { ExchangeHost } from "./server.ts";
import { ServerSegment } from "./server-segment.ts";
import { packRows, unpackRows } from "./wire-rows.ts";
import { monotonicUs } from "./wire-time.ts";

/** The part of a call that does not depend on what is asked. The memory belongs to the call: it is reused once the call is answered. */
interface ExchangeCall {
  readonly layer: number;
  readonly branch: number;
  readonly attempt: number;
  readonly n: number;
  readonly d: number;
  /** [n, d], f32 whatever the wire carried. */
  readonly rows: Float32Array;
  /** [n, d]: where the answer may be written, so that nobody has to copy it. It may be the memory of `rows`. */
  readonly out: Float32Array | undefined;
  /** Milliseconds the router still waits. */
  readonly deadlineMs: number;
  /** W3C trace context of the Denoise call, or undefined. */
  readonly traceparent: string | undefined;
}

export interface ExchangeRequest extends ExchangeCall {
  /** Which experts work on which rows. */
  readonly csr: ExpertRows;
}

export interface DenoiserRequest extends ExchangeCall {
  /** The denoiser asked; rows [channels * frames, cells] are its latent. */
  readonly unit: DenoiserUnit;
}

export interface ExchangeAnswer {
  /** [n, d]: weighted sums over the request's experts, rows in request order; of a denoiser the velocity. */
  readonly partial: Float32Array;
  readonly queueUs: number;
  readonly computeUs: number;
  /** Called once `partial` may be reused. */
  readonly release?: () => void;
}

/** With when its request was whole. */
type TimedAnswer = ExchangeAnswer & { readonly arrivedUs: number };

export type ExchangeHandler = (request: ExchangeRequest) => Promise<ExchangeAnswer>;

/** What a shard's experts are: a request of another kind is refused. */
export interface ExchangeHandlers {
  readonly rows?: ExchangeHandler;
  readonly denoiser?: (request: DenoiserRequest) => Promise<ExchangeAnswer>;
}

/** Where rows lie. */
interface RowsPlace {
  readonly buffer: ArrayBufferLike;
  readonly at: number;
  readonly isSegment: boolean;
}

export class ServerStream {
  /** What the stream's bytes and its end do here. */
  readonly sink: H2StreamSink;
  readonly #stream: H2Stream;
  readonly #host: ExchangeHost;
  #running = 0;
  /** Credit spent on the request that is coming in. */
  #arrivingBytes = 0;
  #greeted = false;
  #segment: ServerSegment | undefined;
  #offered = false;
  #closed = false;
  #whenIdle: (() => void)[] = [];

  /** `closed` is called when the stream is gone. */
  constructor(stream: H2Stream, host: ExchangeHost, closed: (stream: ServerStream) => void) {
    this.#stream = stream;
    this.#host = host;
    const reader = new FrameReader({
      allocate: (header) => this.#allocate(header),
      frame: (header, body) => this.#frame(header, body),
    });
    this.sink = {
      target: () => reader.target(),
      advance: (bytes) => reader.advance(bytes),
      refuse: (thrown) => {
        const error = asMoevieError(thrown);
        stream.end(grpcTrailers(GRPC_CODE[error.code], error.message));
      },
      headers: () => undefined,
      end: () => {
        const [code, text] = reader.idle
          ? [GRPC_CODE.OK, ""]
          : [GRPC_CODE.INVALID_ARGUMENT, "the stream ends inside a frame"];
        stream.end(grpcTrailers(code, text));
      },
      close: () => {
        this.#send(host.ledger.close(this, this.#arrivingBytes));
        this.#closed = true;
        this.#closeSegment();
        closed(this);
      },
    };
    stream.respond(RESPONSE_HEADERS);
  }

  /** Resolves when every request of this stream is answered and its answer is out. */
  idle(): Promise<void> {
    if (this.#running === 0) return Promise.resolve();
    return new Promise((resolve) => this.#whenIdle.push(resolve));
  }

  sendHolds(): void {
    const { holds, segmentFolder } = this.#host;
    const flags = segmentFolder === undefined ? 0 : FrameFlag.segment;
    const header = frameHeader(FrameKind.holds, { epoch: holds.epoch, entries: holds.slots.length, flags });
    this.#stream.write([smallMessage(header, encodeHolds(holds))]);
  }

  sendGrant(bytes: number, recall: boolean): void {
    const flags = recall ? FrameFlag.recall : 0;
    this.#stream.write([smallMessage(frameHeader(FrameKind.grant, { creditBytes: bytes, flags }))]);
  }

  #allocate(header: FrameHeader): Uint8Array {
    switch (header.kind) {
      case FrameKind.hello:
      case FrameKind.grant:
      case FrameKind.segment:
        return new Uint8Array(header.bodyBytes);
      case FrameKind.request:
        if (!this.#host.ledger.spend(this, wholeBytes(header))) {
          throw exchangeError("CREDITS_EXHAUSTED", "the router sent more than its credit");
        }
        this.#arrivingBytes = wholeBytes(header);
        return new Uint8Array(this.#host.pool.take(header.bodyBytes));
      default:
        throw exchangeError("INVALID_FIELD", `a router does not send frames of kind ${header.kind}`);
    }
  }

  #frame(header: FrameHeader, body: Uint8Array): void {
    if (header.kind === FrameKind.hello) {
      if (this.#greeted) throw exchangeError("INVALID_FIELD", "a stream says hello once");
      this.#greeted = true;
      this.sendHolds();
      this.#send(this.#host.ledger.open(this));
    } else if (header.kind === FrameKind.grant) {
      const orders = this.#host.ledger.giveBack(this, header.creditBytes);
      if (orders === false) throw exchangeError("INVALID_FIELD", "the router gave back more credit than it had");
      this.#send(orders);
    } else if (header.kind === FrameKind.segment) {
      if (this.#offered) throw exchangeError("INVALID_FIELD", "a router offers one segment a stream");
      this.#offered = true;
      void this.#join(body);
    } else {
      this.#arrivingBytes = 0;
      void this.#answer(header, body);
    }
  }

  /** Answers the router's proof, or nothing when the segment cannot be had: rows go by the socket then. */
  async #join(offer: Uint8Array): Promise<void> {
    const { segmentFolder } = this.#host;
    let joined: ServerSegment | undefined;
    try {
      if (segmentFolder !== undefined) joined = await ServerSegment.join(segmentFolder, Buffer.from(offer));
    } catch {
      // The router says that rows go by the socket.
    }
    this.#segment = joined;
    if (this.#closed) this.#closeSegment();
    else this.#stream.write([smallMessage(frameHeader(FrameKind.segment), joined?.proof)]);
  }

  #closeSegment(): void {
    if (this.#running > 0) return;
    this.#segment?.close();
    this.#segment = undefined;
  }

  async #answer(header: FrameHeader, body: Uint8Array): Promise<void> {
    const { pool } = this.#host;
    const arrivedUs = monotonicUs();
    this.#running++;
    let widened: ArrayBuffer | undefined;
    try {
      this.#check(header);
      const asked = decodeAsked(header, body.buffer);
      this.#checkHeld(header, expertsOf(asked));
      const place = this.#placeOf(header, body);
      const { layer, branch, attempt, n, d, deadlineMs } = header;
      let rows: Float32Array;
      if (header.rowsType === WireType.f32) rows = new Float32Array(place.buffer, place.at, n * d);
      else {
        widened = pool.take(n * d * 4);
        rows = new Float32Array(widened, 0, n * d);
        unpackRows(place.buffer, place.at, header.rowsType, rows.length, rows);
      }
      const out = place.isSegment && header.answerType === WireType.f32 ? rows : undefined;
      const traceparent = header.traceId === "" ? undefined : `00-${header.traceId}-${header.spanId}-01`;
      const call = { layer, branch, attempt, n, d, rows, out, deadlineMs, traceparent };
      const answer = await this.#handle(call, asked);
      const counts = countsOf(asked, n);
      const partial = { ...answer, arrivedUs };
      if (place.isSegment) this.#writePlaced(header, counts, partial, place);
      else this.#writePartial(header, counts, partial, () => this.#sent());
    } catch (thrown) {
      this.#writeError(header, thrown, () => this.#sent());
    } finally {
      if (widened !== undefined) pool.give(widened);
      pool.give(body.buffer as ArrayBuffer);
    }
  }

  /** Where the request's rows begin. Throws INVALID_FIELD for a place that is not in the segment. */
  #placeOf(header: FrameHeader, body: Uint8Array): RowsPlace {
    const at = rowsAt(header);
    if ((header.flags & FrameFlag.segment) === 0) return { buffer: body.buffer, at, isSegment: false };
    if (this.#segment === undefined) throw exchangeError("INVALID_FIELD", "rows in a segment that nobody shares");
    if (header.answerType !== header.rowsType)
      throw exchangeError("INVALID_FIELD", "rows in a segment are answered where they lie, in their own type");
    const placed = readPlace(body, at);
    this.#segment.check(placed, rowsBytes(header));
    return { buffer: this.#segment.buffer, at: placed, isSegment: true };
  }

  #handle(call: ExchangeCall, asked: Asked): Promise<ExchangeAnswer> {
    const { rows, denoiser } = this.#host.handlers;
    if (asked.unit === undefined && rows !== undefined) return rows({ ...call, csr: asked.csr });
    if (asked.unit !== undefined && denoiser !== undefined) return denoiser({ ...call, unit: asked.unit });
    const [is, was] = rows === undefined ? ["whole denoisers", "rows"] : ["rows", "a whole denoiser"];
    throw exchangeError("INVALID_FIELD", `this shard's experts work on ${is}, the request is for ${was}`);
  }

  /** An answer is out, or will never be. */
  #sent(): void {
    this.#running--;
    if (this.#closed) this.#closeSegment();
    if (this.#running === 0) for (const resolve of this.#whenIdle.splice(0)) resolve();
  }

  #check(header: FrameHeader): void {
    if (this.#host.draining) throw exchangeError("DRAINING", "the shard is going away");
    if (header.answerType === WireType.none) throw exchangeError("INVALID_FIELD", "no element type for the answer");
  }

  /** A call of another epoch is as good as one of this, as long as the shard has what it asks for. */
  #checkHeld({ layer, epoch }: FrameHeader, experts: readonly number[]): void {
    const { held, holds } = this.#host;
    const missing = experts.find((expert) => !held.has(layer * 65_536 + expert));
    if (missing === undefined) return;
    const what = `expert ${missing} of layer ${layer}`;
    if (epoch === holds.epoch) throw exchangeError("EXPERT_MISSING", `the shard does not hold ${what}`);
    const text = `the request names placement epoch ${epoch}; the shard has ${holds.epoch}, and ${what} not any more`;
    throw exchangeError("STALE_PLACEMENT", text);
  }

  /** An answer where the request's rows lay. */
  #writePlaced(request: FrameHeader, counts: readonly number[], answer: TimedAnswer, place: RowsPlace): void {
    const { n, d, answerType: type } = request;
    const { partial } = answer;
    if (partial.length !== n * d) throw exchangeError("INTERNAL", "the shard answered another number of rows");
    if (partial.buffer !== place.buffer) packRows(partial, type, place.buffer, place.at);
    answer.release?.();
    const { rows } = partialLayout(n, d, counts.length, type);
    const body = Buffer.alloc(rows + SEGMENT_PLACE_BYTES);
    for (const [j, count] of counts.entries()) body.writeUInt32LE(count, j * 4);
    placeRows(body, rows, place.at);
    const header = this.#partialHeader(request, counts.length, answer);
    this.#stream.write([smallMessage({ ...header, flags: header.flags | FrameFlag.segment }, body)], () =>
      this.#sent(),
    );
  }

  /** `counts`: rows each of the experts asked worked on. */
  #writePartial(request: FrameHeader, counts: readonly number[], answer: TimedAnswer, sent: () => void): void {
    const { n, d, answerType: type } = request;
    if (answer.partial.length !== n * d) throw exchangeError("INTERNAL", "the shard answered another number of rows");
    const layout = partialLayout(n, d, counts.length, type);
    const direct = type === WireType.f32;
    const buffer = Buffer.allocUnsafe(BODY_OFFSET + layout.rows + (direct ? 0 : n * d * elementBytes(type)));
    for (const [j, count] of counts.entries()) buffer.writeUInt32LE(count, BODY_OFFSET + j * 4);
    buffer.fill(0, BODY_OFFSET + counts.length * 4, BODY_OFFSET + layout.rows);
    const header = this.#partialHeader(request, counts.length, answer);
    const start = writeHead({ ...header, bodyBytes: layout.total }, buffer);
    if (direct) {
      const { partial } = answer;
      const rows = new Uint8Array(partial.buffer, partial.byteOffset, partial.byteLength);
      this.#stream.write([buffer.subarray(start), rows], () => {
        answer.release?.();
        sent();
      });
    } else {
      packRows(answer.partial, type, buffer.buffer, buffer.byteOffset + BODY_OFFSET + layout.rows);
      answer.release?.();
      this.#stream.write([buffer.subarray(start)], sent);
    }
  }

  #partialHeader(request: FrameHeader, experts: number, answer: TimedAnswer): FrameHeader {
    return frameHeader(FrameKind.partial, {
      ...this.#identity(request),
      flags: FrameFlag.clock,
      arrivedUs: answer.arrivedUs,
      rowsType: request.answerType,
      n: request.n,
      d: request.d,
      experts,
      queueUs: Math.round(answer.queueUs),
      computeUs: Math.round(answer.computeUs),
      creditBytes: this.#settle(request),
    });
  }

  #writeError(request: FrameHeader, thrown: unknown, sent: () => void): void {
    const error = asMoevieError(thrown);
    const header = frameHeader(FrameKind.error, {
      ...this.#identity(request),
      deadlineMs: error.retryAfterMs ?? 0,
      creditBytes: this.#settle(request),
    });
    this.#stream.write([smallMessage(header, encodeError(error.reason, error.message))], sent);
  }

  #identity(request: FrameHeader): { call: number; layer: number; attempt: number; branch: number; epoch: number } {
    const { call, layer, attempt, branch } = request;
    return { call, layer, attempt, branch, epoch: this.#host.holds.epoch };
  }

  /** Returns the credit this stream gets back with its answer; other streams' grants go out as frames of their own. */
  #settle(request: FrameHeader): number {
    const orders = this.#host.ledger.settle(this, wholeBytes(request));
    const own = orders.filter((order) => order.stream === this && order.kind === "grant");
    this.#send(orders.filter((order) => !own.includes(order)));
    return own.reduce((sum, order) => sum + (order.kind === "grant" ? order.bytes : 0), 0);
  }

  #send(orders: readonly CreditOrder<ServerStream>[]): void {
    for (const order of orders) {
      if (order.kind === "grant") order.stream.sendGrant(order.bytes, false);
      else order.stream.sendGrant(order.keepBytes, true);
    }
  }
}

function decodeAsked(header: FrameHeader, body: ArrayBufferLike): Asked {
  return header.unit === UnitType.denoiser
    ? { unit: decodeUnit(header, body) }
    : { csr: decodeExpertRows(header, body, 0) };
}

function expertsOf({ csr, unit }: Asked): readonly number[] {
  return unit === undefined ? [...csr.experts] : [unit.expert];
}

/** Rows that each expert works on. */
function countsOf({ csr, unit }: Asked, n: number): number[] {
  if (unit !== undefined) return [n];
  return Array.from(csr.experts, (_, j) => (csr.offsets[j + 1] ?? 0) - (csr.offsets[j] ?? 0));
}
