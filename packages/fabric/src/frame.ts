// The fixed header of every exchange frame (docs/wire-format.md): encoding, decoding and the bounds that hold before
// any length of a peer is believed. Pure; it may not allocate by a length it has not checked.
import { exchangeError } from "./exchange-error.ts";

/** "MVX1" read as a little-endian u32. */
const FRAME_MAGIC = 0x3158_564d;
const FRAME_VERSION = 1;
export const HEADER_BYTES = 104;

/** Kinds of frame. Hello and request go to the shard, the others come from it; grant and segment go both ways. */
export const FrameKind = { hello: 1, holds: 2, grant: 3, request: 4, partial: 5, error: 6, segment: 7 } as const;
export type FrameKind = (typeof FrameKind)[keyof typeof FrameKind];

/** Element types on the wire; 0 stands for no rows. */
export const WireType = { none: 0, f32: 1, bf16: 2, f16: 3 } as const;
export type WireType = (typeof WireType)[keyof typeof WireType];

/** What a request asks an expert for: 0 rows of one layer, 1 the velocity of a whole denoiser. */
export const UnitType = { rows: 0, denoiser: 1 } as const;
export type UnitType = (typeof UnitType)[keyof typeof UnitType];

export const FrameFlag = {
  /** traceId and spanId are set. */
  trace: 1,
  /** A grant from the shard that asks for credit back: creditBytes is what the router may keep. */
  recall: 2,
  /** Of holds: the shard takes a segment. Of a request or partial: its rows lie in the segment, the body says where. */
  segment: 4,
  /** Of a partial: arrivedUs is set. */
  clock: 8,
} as const;

const ROWS_PER_FRAME_MAX = 1_048_576;
const ROW_WIDTH_MAX = 65_536;
const ENTRIES_PER_FRAME_MAX = 8_388_608;
const EXPERTS_PER_FRAME_MAX = 4096;
export const BODY_BYTES_MAX = 67_108_864;
const LAYERS_MAX = 65_536;

export interface FrameHeader {
  kind: FrameKind;
  flags: number;
  /** Chosen by the router, rising, never used twice on a stream. */
  call: number;
  layer: number;
  attempt: number;
  /** 1 conditional, 2 unconditional, 0 unknown: for traces and statistics only. */
  branch: number;
  epoch: number;
  rowsType: WireType;
  /** Element type asked for in the answer. */
  answerType: WireType;
  unit: UnitType;
  /** Rows. */
  n: number;
  /** Width of a row. */
  d: number;
  /** (row, expert) entries of a request for rows; values of the text context of one for a denoiser; slots of a holds frame. */
  entries: number;
  /** Local experts named by a request or counted by a partial. */
  experts: number;
  /** Time the sender still gives; in an error, how long to wait before trying again. */
  deadlineMs: number;
  /** Of a partial, in place of the deadline: when the request was whole by the shard's monotonic clock, microseconds modulo 2^32. */
  arrivedUs: number;
  queueUs: number;
  computeUs: number;
  creditBytes: number;
  /** 32 hex digits, or empty. */
  traceId: string;
  /** 16 hex digits, or empty. */
  spanId: string;
  bodyBytes: number;
}

/** A header with every field at rest; callers name what they set. */
export function frameHeader(kind: FrameKind, fields: Partial<FrameHeader> = {}): FrameHeader {
  return {
    kind,
    flags: 0,
    call: 0,
    layer: 0,
    attempt: 0,
    branch: 0,
    epoch: 0,
    rowsType: WireType.none,
    answerType: WireType.none,
    unit: UnitType.rows,
    n: 0,
    d: 0,
    entries: 0,
    experts: 0,
    deadlineMs: 0,
    arrivedUs: 0,
    queueUs: 0,
    computeUs: 0,
    creditBytes: 0,
    traceId: "",
    spanId: "",
    bodyBytes: 0,
    ...fields,
  };
}

/** Writes the header at `at` and returns the offset behind it. */
export function encodeHeader(header: FrameHeader, target: Buffer, at: number): number {
  const end = target.writeUInt32LE(FRAME_MAGIC, at);
  target.writeUInt16LE(FRAME_VERSION, end);
  target.writeUInt8(header.kind, at + 6);
  target.writeUInt8(header.flags | (header.traceId === "" ? 0 : FrameFlag.trace), at + 7);
  writeSafeInteger(target, header.call, at + 8);
  target.writeUInt32LE(header.layer, at + 16);
  target.writeUInt16LE(header.attempt, at + 20);
  target.writeUInt16LE(header.branch, at + 22);
  writeSafeInteger(target, header.epoch, at + 24);
  target.writeUInt8(header.rowsType, at + 32);
  target.writeUInt8(header.answerType, at + 33);
  target.writeUInt16LE(header.unit, at + 34);
  target.writeUInt32LE(header.n, at + 36);
  target.writeUInt32LE(header.d, at + 40);
  target.writeUInt32LE(header.entries, at + 44);
  target.writeUInt32LE(header.experts, at + 48);
  target.writeUInt32LE(header.kind === FrameKind.partial ? header.arrivedUs : header.deadlineMs, at + 52);
  target.writeUInt32LE(header.queueUs, at + 56);
  target.writeUInt32LE(header.computeUs, at + 60);
  writeSafeInteger(target, header.creditBytes, at + 64);
  target.fill(0, at + 72, at + 96);
  if (header.traceId !== "") target.write(header.traceId, at + 72, 16, "hex");
  if (header.spanId !== "") target.write(header.spanId, at + 88, 8, "hex");
  target.writeUInt32LE(header.bodyBytes, at + 96);
  target.writeUInt32LE(headerChecksum(target, at), at + 100);
  return at + HEADER_BYTES;
}

/**
 * Reads and bounds a header. Throws a MoevieError: UNSUPPORTED for another version, INVALID_FIELD for anything that is
 * not a header or names a size beyond the limits.
 */
export function decodeHeader(source: Buffer, at: number): FrameHeader {
  if (source.length - at < HEADER_BYTES) throw exchangeError("INVALID_FIELD", "exchange frame shorter than its header");
  if (source.readUInt32LE(at) !== FRAME_MAGIC) throw exchangeError("INVALID_FIELD", "not an exchange frame");
  if (source.readUInt16LE(at + 4) !== FRAME_VERSION) {
    throw exchangeError("UNSUPPORTED", `exchange version ${source.readUInt16LE(at + 4)} is not ${FRAME_VERSION}`);
  }
  if (source.readUInt32LE(at + 100) !== headerChecksum(source, at)) {
    throw exchangeError("INVALID_FIELD", "exchange header does not match its checksum");
  }
  const flags = source.readUInt8(at + 7);
  const traced = (flags & FrameFlag.trace) !== 0;
  const kind = bounded("kind", source.readUInt8(at + 6), 1, FrameKind.segment) as FrameKind;
  const deadlineOrArrived = source.readUInt32LE(at + 52);
  return {
    kind,
    flags,
    call: readSafeInteger(source, at + 8, "call"),
    layer: bounded("layer", source.readUInt32LE(at + 16), 0, LAYERS_MAX),
    attempt: source.readUInt16LE(at + 20),
    branch: source.readUInt16LE(at + 22),
    epoch: readSafeInteger(source, at + 24, "epoch"),
    rowsType: bounded("rows type", source.readUInt8(at + 32), 0, WireType.f16) as WireType,
    answerType: bounded("answer type", source.readUInt8(at + 33), 0, WireType.f16) as WireType,
    unit: bounded("unit", source.readUInt16LE(at + 34), 0, UnitType.denoiser) as UnitType,
    n: bounded("n", source.readUInt32LE(at + 36), 0, ROWS_PER_FRAME_MAX),
    d: bounded("d", source.readUInt32LE(at + 40), 0, ROW_WIDTH_MAX),
    entries: bounded("entries", source.readUInt32LE(at + 44), 0, ENTRIES_PER_FRAME_MAX),
    experts: bounded("experts", source.readUInt32LE(at + 48), 0, EXPERTS_PER_FRAME_MAX),
    deadlineMs: kind === FrameKind.partial ? 0 : deadlineOrArrived,
    arrivedUs: kind === FrameKind.partial ? deadlineOrArrived : 0,
    queueUs: source.readUInt32LE(at + 56),
    computeUs: source.readUInt32LE(at + 60),
    creditBytes: readSafeInteger(source, at + 64, "credit"),
    traceId: traced ? source.toString("hex", at + 72, at + 88) : "",
    spanId: traced ? source.toString("hex", at + 88, at + 96) : "",
    bodyBytes: bounded("body bytes", source.readUInt32LE(at + 96), 0, BODY_BYTES_MAX),
  };
}

/** FNV-1a over everything before the checksum itself: it guards the lengths, not the rows. */
function headerChecksum(source: Buffer, at: number): number {
  let hash = 0x811c_9dc5;
  for (let offset = at; offset < at + HEADER_BYTES - 4; offset++) {
    hash = Math.imul(hash ^ (source[offset] ?? 0), 0x0100_0193);
  }
  return hash >>> 0;
}

function bounded(name: string, value: number, minimum: number, maximum: number): number {
  if (value < minimum || value > maximum) {
    throw exchangeError("INVALID_FIELD", `exchange header: ${name} ${value} is not from ${minimum} to ${maximum}`);
  }
  return value;
}

function writeSafeInteger(target: Buffer, value: number, at: number): void {
  target.writeUInt32LE(value % 0x1_0000_0000, at);
  target.writeUInt32LE(Math.floor(value / 0x1_0000_0000), at + 4);
}

function readSafeInteger(source: Buffer, at: number, name: string): number {
  return source.readUInt32LE(at) + bounded(name, source.readUInt32LE(at + 4), 0, 0x1f_ffff) * 0x1_0000_0000;
}
