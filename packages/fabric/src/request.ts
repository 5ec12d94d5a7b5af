// A request as the router writes it: what the shard's experts are asked, then rows. Two kinds of asking, one frame.
import { limit } from "@moevie/contracts";
import { SEGMENT_PLACE_BYTES, elementBytes, encodeUnit, placeRows, requestLayout, unitRowsAt } from "./body.ts";
import type { Asked, ExpertRows } from "./body.ts";
import { exchangeError } from "./exchange-error.ts";
import { FrameFlag, FrameKind, UnitType, frameHeader } from "./frame.ts";
import type { WireType } from "./frame.ts";
import { BODY_OFFSET, writeHead } from "./link.ts";
import { gatherRows } from "./wire-rows.ts";

export type ExchangeOptions = Asked & {
  readonly layer: number;
  readonly epoch: number;
  readonly attempt: number;
  readonly branch: number;
  /** All rows of the layer, [tokens, d]; only `rows` of them are sent. Of a denoiser: the latent, all of it. */
  readonly source: Float32Array;
  readonly rows: Uint32Array;
  readonly d: number;
  readonly wire: WireType;
  /** Longest wait; the shard's own moving deadline applies when it is shorter. */
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
  readonly traceparent?: string;
};

interface Head {
  readonly unit: UnitType;
  readonly entries: number;
  readonly experts: number;
  /** Bytes in front of the rows. */
  readonly bytes: number;
}

function headOf({ csr, unit, d, rows, wire }: ExchangeOptions): Head {
  if (unit !== undefined) {
    const entries = unit.context.length;
    return { unit: UnitType.denoiser, entries, experts: 1, bytes: unitRowsAt(entries) };
  }
  const [entries, experts] = [csr.rowIndex.length, csr.experts.length];
  return { unit: UnitType.rows, entries, experts, bytes: requestLayout(rows.length, d, entries, experts, wire).rows };
}

/** Bytes of the request's rows. */
export function requestRowsBytes({ rows, d, wire }: ExchangeOptions): number {
  return rows.length * d * elementBytes(wire);
}

/** Bytes of the request's body, its rows in it. Throws INVALID_FIELD beyond frameBytesMax. */
export function requestBytes(options: ExchangeOptions): number {
  const total = headOf(options).bytes + requestRowsBytes(options);
  if (total > limit("frameBytesMax"))
    throw exchangeError("INVALID_FIELD", `an exchange of ${total} bytes is above ${limit("frameBytesMax")}`);
  return total;
}

/** A part of a segment for the rows of a request and of its answer. */
export interface RequestPlace {
  readonly buffer: ArrayBuffer;
  readonly at: number;
}

/** Bytes of the buffer that a message needs. */
export function messageBytes(options: ExchangeOptions, inSegment: boolean): number {
  return BODY_OFFSET + headOf(options).bytes + (inSegment ? SEGMENT_PLACE_BYTES : requestRowsBytes(options));
}

/** Writes the whole message into `buffer`, which has messageBytes, and answers the part to send. With a `place`, rows are written there. */
export function encodeRequest(
  buffer: ArrayBuffer,
  options: ExchangeOptions,
  sent: { readonly call: number; readonly timeoutMs: number; readonly place: RequestPlace | undefined },
): Buffer {
  const { call, timeoutMs, place } = sent;
  const { layer, attempt, branch, epoch, d, rows, wire, csr, unit } = options;
  const { bytes, ...sizes } = headOf(options);
  const bodyBytes = bytes + (place === undefined ? requestRowsBytes(options) : SEGMENT_PLACE_BYTES);
  const trace = /^[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f][13579bdf]$/.exec(options.traceparent ?? "");
  const header = frameHeader(FrameKind.request, {
    call,
    layer,
    attempt,
    branch,
    epoch,
    rowsType: wire,
    answerType: wire,
    n: rows.length,
    d,
    ...sizes,
    flags: place === undefined ? 0 : FrameFlag.segment,
    deadlineMs: timeoutMs,
    traceId: trace?.[1] ?? "",
    spanId: trace?.[2] ?? "",
    bodyBytes,
  });
  const message = Buffer.from(buffer, 0, BODY_OFFSET + bodyBytes);
  const start = writeHead(header, message);
  if (unit !== undefined) encodeUnit(unit, buffer, BODY_OFFSET);
  else encodeExpertRows(csr, buffer, bytes, requestLayout(rows.length, d, sizes.entries, sizes.experts, wire));
  if (place === undefined) gatherRows(options.source, rows, d, wire, buffer, BODY_OFFSET + bytes);
  else {
    gatherRows(options.source, rows, d, wire, place.buffer, place.at);
    placeRows(message, BODY_OFFSET + bytes, place.at);
  }
  return message.subarray(start);
}

function encodeExpertRows(
  csr: ExpertRows,
  buffer: ArrayBuffer,
  bytes: number,
  layout: { readonly rowIndex: number; readonly weights: number; readonly experts: number },
): void {
  new Uint32Array(buffer, BODY_OFFSET, csr.offsets.length).set(csr.offsets);
  new Uint32Array(buffer, BODY_OFFSET + layout.rowIndex, csr.rowIndex.length).set(csr.rowIndex);
  new Float32Array(buffer, BODY_OFFSET + layout.weights, csr.weights.length).set(csr.weights);
  new Uint16Array(buffer, BODY_OFFSET + layout.experts, csr.experts.length).set(csr.experts);
  const padding = layout.experts + csr.experts.length * 2;
  new Uint8Array(buffer, BODY_OFFSET + padding, bytes - padding).fill(0);
}
