// The bodies behind the header: what a request, a partial, a holds, a hello and an error frame carry. Pure; every length
// is checked against the body before a view is made, and views never reach past it.
import { exchangeError, reasonFromWire } from "./exchange-error.ts";
import type { ExchangeReason } from "./exchange-error.ts";
import { BODY_BYTES_MAX, FrameFlag, FrameKind, UnitType, WireType } from "./frame.ts";
import type { FrameHeader } from "./frame.ts";

/** Compressed rows by local expert: entry e of expert j lies at offsets[j] ≤ e < offsets[j + 1]. */
export interface ExpertRows {
  /** Logical expert ids, ascending, [experts]. */
  readonly experts: Uint16Array;
  /** [experts + 1]. */
  readonly offsets: Uint32Array;
  /** Row of the request each entry reads, [entries]. */
  readonly rowIndex: Uint32Array;
  /** Weight of each entry in its row's sum, [entries]. */
  readonly weights: Float32Array;
}

/** One slot a shard holds. */
export interface HeldSlot {
  readonly layer: number;
  readonly expert: number;
  readonly slot: number;
}

export interface Holds {
  /** Digest of the bundle whose experts these are. */
  readonly digest: string;
  readonly epoch: number;
  readonly slots: readonly HeldSlot[];
}

const NAME_BYTES_MAX = 256;
const SLOT_BYTES = 8;
/** An offer of a segment and its answer are far smaller. */
const SEGMENT_BODY_BYTES_MAX = 256;

export function elementBytes(type: WireType): number {
  if (type === WireType.none) return 0;
  return type === WireType.f32 ? 4 : 2;
}

/** Where the sections of a request lie, in bytes from the start of the body. */
export interface RequestLayout {
  readonly rowIndex: number;
  readonly weights: number;
  readonly experts: number;
  readonly rows: number;
  readonly total: number;
}

/** Sections in order: offsets u32, rowIndex u32, weights f32, experts u16 (padded to 8 bytes), rows. */
export function requestLayout(n: number, d: number, entries: number, experts: number, type: WireType): RequestLayout {
  const rowIndex = (experts + 1) * 4;
  const weights = rowIndex + entries * 4;
  const expertsAt = weights + entries * 4;
  const rows = Math.ceil((expertsAt + experts * 2) / 8) * 8;
  return { rowIndex, weights, experts: expertsAt, rows, total: rows + n * d * elementBytes(type) };
}

/** Counts u32 [experts] (padded to 8 bytes), then rows [n, d]. Returns where the rows start and the total. */
export function partialLayout(n: number, d: number, experts: number, type: WireType): { rows: number; total: number } {
  const rows = Math.ceil((experts * 4) / 8) * 8;
  return { rows, total: rows + n * d * elementBytes(type) };
}

/** What a denoiser is asked, but for the latent, whose channels and frames are the rows of the request and whose cells are their width. */
export interface DenoiserUnit {
  readonly expert: number;
  readonly timestep: number;
  /** [channels, frames, height, width]. */
  readonly shape: readonly [number, number, number, number];
  /** Text context, [tokens, width]. */
  readonly context: Float32Array;
  readonly tokens: number;
}

/** Which experts work on which rows, or the whole denoiser that is asked: the rows are then its latent. */
export type Asked =
  | { readonly csr: ExpertRows; readonly unit?: undefined }
  | { readonly unit: DenoiserUnit; readonly csr?: undefined };

/** timestep, the four sizes of the latent, tokens of the context; the rest is 0. */
const UNIT_PARAMETERS = 8;
const UNIT_PARAMETERS_AT = 8;
const UNIT_CONTEXT_AT = UNIT_PARAMETERS_AT + UNIT_PARAMETERS * 4;

/** Where the rows of a request for a denoiser begin: behind the expert (padded to 8 bytes), the parameters and the context. */
export function unitRowsAt(contextValues: number): number {
  return Math.ceil((UNIT_CONTEXT_AT + contextValues * 4) / 8) * 8;
}

export function encodeUnit(
  { expert, timestep, shape, context, tokens }: DenoiserUnit,
  target: ArrayBuffer,
  at: number,
): void {
  new Uint8Array(target, at, unitRowsAt(context.length)).fill(0);
  new Uint16Array(target, at, 1).set([expert]);
  new Float32Array(target, at + UNIT_PARAMETERS_AT, UNIT_PARAMETERS).set([timestep, ...shape, tokens]);
  new Float32Array(target, at + UNIT_CONTEXT_AT, context.length).set(context);
}

/** Reads a unit whose context stays a view of the body. Throws INVALID_FIELD when its sizes contradict the header. */
export function decodeUnit({ n, d, entries, experts }: FrameHeader, body: ArrayBufferLike): DenoiserUnit {
  const parameters = [...new Float32Array(body, UNIT_PARAMETERS_AT, UNIT_PARAMETERS)];
  const [timestep = 0, channels = 0, frames = 0, height = 0, width = 0, tokens = 0] = parameters;
  const sizes = [channels, frames, height, width, tokens];
  const sound =
    experts === 1 &&
    sizes.every((size) => Number.isInteger(size) && size >= 1) &&
    channels * frames === n &&
    height * width === d &&
    entries % tokens === 0 &&
    Number.isFinite(timestep);
  if (!sound)
    throw exchangeError(
      "INVALID_FIELD",
      `exchange unit: sizes [${sizes.join(", ")}] do not fit [${n}, ${d}] and ${entries} context values`,
    );
  const expert = new Uint16Array(body, 0, 1)[0] ?? 0;
  return {
    expert,
    timestep,
    shape: [channels, frames, height, width],
    context: new Float32Array(body, UNIT_CONTEXT_AT, entries),
    tokens,
  };
}

/** What stands for rows that lie in the segment: the byte there that they begin at, u64. */
export const SEGMENT_PLACE_BYTES = 8;

/** Writes byte `place` of the segment at `at` of a body. */
export function placeRows(body: Buffer, at: number, place: number): void {
  body.writeBigUInt64LE(BigInt(place), at);
}

/** Reads it; no more than a number yet. */
export function readPlace(body: Uint8Array, at: number): number {
  return Number(new DataView(body.buffer, body.byteOffset).getBigUint64(at, true));
}

/** Bytes of the rows of a request or partial, wherever they lie. */
export function rowsBytes({ n, d, rowsType }: FrameHeader): number {
  return n * d * elementBytes(rowsType);
}

/** Bytes of the body as if its rows lay in it: what a request costs of the stream's credit. */
export function wholeBytes(header: FrameHeader): number {
  return (header.flags & FrameFlag.segment) === 0
    ? header.bodyBytes
    : header.bodyBytes - SEGMENT_PLACE_BYTES + rowsBytes(header);
}

/** Where the rows of a request or partial begin in its body, or what stands for them. */
export function rowsAt({ kind, unit, n, d, entries, experts, rowsType }: FrameHeader): number {
  if (kind === FrameKind.partial) return partialLayout(n, d, experts, rowsType).rows;
  return unit === UnitType.denoiser ? unitRowsAt(entries) : requestLayout(n, d, entries, experts, rowsType).rows;
}

/** The body a header promises must be the body its sizes need: checked before a body buffer is allocated. */
export function checkBodyBytes(header: FrameHeader): void {
  let [need, whole] = [0, 0];
  switch (header.kind) {
    case FrameKind.request:
    case FrameKind.partial: {
      rowType(header.rowsType);
      const rows = rowsBytes(header);
      need = rowsAt(header) + ((header.flags & FrameFlag.segment) === 0 ? rows : SEGMENT_PLACE_BYTES);
      whole = rowsAt(header) + rows;
      break;
    }
    case FrameKind.grant:
      break;
    case FrameKind.segment:
      need = Math.min(header.bodyBytes, SEGMENT_BODY_BYTES_MAX);
      break;
    default:
      need = Math.min(header.bodyBytes, BODY_BYTES_MAX);
  }
  if (need !== header.bodyBytes || Math.max(need, whole) > BODY_BYTES_MAX) {
    throw exchangeError("INVALID_FIELD", `exchange body has ${header.bodyBytes} bytes where its sizes need ${need}`);
  }
}

/** Views of a request's CSR part. The rows are read by `readRows`. Throws INVALID_FIELD when the parts contradict. */
export function decodeExpertRows(header: FrameHeader, body: ArrayBufferLike, at: number): ExpertRows {
  const layout = requestLayout(header.n, header.d, header.entries, header.experts, header.rowsType);
  const csr: ExpertRows = {
    offsets: new Uint32Array(body, at, header.experts + 1),
    rowIndex: new Uint32Array(body, at + layout.rowIndex, header.entries),
    weights: new Float32Array(body, at + layout.weights, header.entries),
    experts: new Uint16Array(body, at + layout.experts, header.experts),
  };
  checkExpertRows(csr, header.n);
  return csr;
}

/** Offsets rise from 0 to the number of entries, experts rise strictly, every row index is below n. */
export function checkExpertRows(csr: ExpertRows, n: number): void {
  const { offsets, experts, rowIndex } = csr;
  let fault = "";
  if (offsets.length !== experts.length + 1 || offsets[0] !== 0 || offsets[experts.length] !== rowIndex.length) {
    fault = "offsets do not span the entries";
  }
  for (let j = 0; j < experts.length && fault === ""; j++) {
    if ((offsets[j + 1] ?? 0) < (offsets[j] ?? 0)) fault = "offsets fall";
    if (j > 0 && (experts[j] ?? 0) <= (experts[j - 1] ?? 0)) fault = "experts do not rise";
  }
  for (let entry = 0; entry < rowIndex.length && fault === ""; entry++) {
    if ((rowIndex[entry] ?? n) >= n) fault = "row index beyond the rows";
  }
  if (fault !== "") throw exchangeError("INVALID_FIELD", `exchange request: ${fault}`);
}

export function encodeHolds(holds: Holds): Buffer {
  const digest = Buffer.from(holds.digest, "utf8").subarray(0, NAME_BYTES_MAX);
  const body = Buffer.alloc(holds.slots.length * SLOT_BYTES + digest.length);
  holds.slots.forEach((slot, index) => {
    body.writeUInt16LE(slot.layer, index * SLOT_BYTES);
    body.writeUInt16LE(slot.expert, index * SLOT_BYTES + 2);
    body.writeUInt32LE(slot.slot, index * SLOT_BYTES + 4);
  });
  digest.copy(body, holds.slots.length * SLOT_BYTES);
  return body;
}

export function decodeHolds(header: FrameHeader, body: Buffer): Holds {
  const end = header.entries * SLOT_BYTES;
  if (end > body.length || body.length - end > NAME_BYTES_MAX) {
    throw exchangeError("INVALID_FIELD", "exchange holds: slots do not fit the body");
  }
  const slots = Array.from({ length: header.entries }, (_, index) => ({
    layer: body.readUInt16LE(index * SLOT_BYTES),
    expert: body.readUInt16LE(index * SLOT_BYTES + 2),
    slot: body.readUInt32LE(index * SLOT_BYTES + 4),
  }));
  return { digest: body.toString("utf8", end), epoch: header.epoch, slots };
}

export function encodeError(reason: string, message: string): Buffer {
  const head = Buffer.from(reason, "utf8").subarray(0, NAME_BYTES_MAX);
  const text = Buffer.from(message, "utf8").subarray(0, 4 * NAME_BYTES_MAX);
  const body = Buffer.alloc(2 + head.length + text.length);
  body.writeUInt16LE(head.length, 0);
  head.copy(body, 2);
  text.copy(body, 2 + head.length);
  return body;
}

export function decodeError(body: Buffer): { reason: ExchangeReason; message: string } {
  const length = body.length >= 2 ? body.readUInt16LE(0) : 0;
  if (body.length < 2 || length > body.length - 2 || body.length > 2 + 5 * NAME_BYTES_MAX) {
    throw exchangeError("INVALID_FIELD", "exchange error: reason does not fit the body");
  }
  return { reason: reasonFromWire(body.toString("utf8", 2, 2 + length)), message: body.toString("utf8", 2 + length) };
}

function rowType(type: WireType): WireType {
  if (type === WireType.none) throw exchangeError("INVALID_FIELD", "exchange rows without an element type");
  return type;
}
