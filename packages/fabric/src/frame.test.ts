// What the wire promises: golden bytes, bounds, and a reader that no input makes over-read or throw anything untyped.
import * as fc from "fast-check";
import { MoevieError } from "@moevie/contracts";
import { expect, test } from "vitest";
import {
  decodeExpertRows,
  decodeHolds,
  encodeHolds,
  placeRows,
  readPlace,
  requestLayout,
  rowsAt,
  wholeBytes,
} from "./body.ts";
import { FrameReader } from "./frame-reader.ts";
import {
  BODY_BYTES_MAX,
  FrameFlag,
  FrameKind,
  HEADER_BYTES,
  WireType,
  decodeHeader,
  encodeHeader,
  frameHeader,
} from "./frame.ts";
import type { FrameHeader } from "./frame.ts";
import { smallMessage } from "./link.ts";

const golden = frameHeader(FrameKind.request, {
  call: 0x1_0000_0002,
  layer: 3,
  attempt: 1,
  branch: 2,
  epoch: 7,
  rowsType: WireType.f32,
  answerType: WireType.bf16,
  n: 2,
  d: 4,
  entries: 3,
  experts: 2,
  deadlineMs: 250,
  queueUs: 5,
  computeUs: 6,
  creditBytes: 65_536,
  traceId: "0af7651916cd43dd8448eb211c80319c",
  spanId: "b7ad6b7169203331",
  bodyBytes: 72,
});

test("a request header has the bytes written in docs/wire-format.md", () => {
  const bytes = Buffer.alloc(HEADER_BYTES);
  encodeHeader(golden, bytes, 0);
  expect(bytes.toString("hex").match(/.{1,32}/g)).toEqual([
    "4d565831010004010200000001000000",
    "03000000010002000700000000000000",
    "01020000020000000400000003000000",
    "02000000fa0000000500000006000000",
    "00000100000000000af7651916cd43dd",
    "8448eb211c80319cb7ad6b7169203331",
    "48000000dbbd1395",
  ]);
  expect(decodeHeader(bytes, 0)).toEqual({ ...golden, flags: 1 });
});

test("a holds frame has the bytes written in docs/wire-format.md", () => {
  const slots = [
    { layer: 0, expert: 5, slot: 0 },
    { layer: 3, expert: 1, slot: 2 },
  ];
  const holds = { digest: "d1", epoch: 8, slots };
  const body = encodeHolds(holds);
  const header = frameHeader(FrameKind.holds, { epoch: 8, entries: 2, bodyBytes: body.length });
  const bytes = Buffer.alloc(HEADER_BYTES);
  encodeHeader(header, bytes, 0);
  expect(
    Buffer.concat([bytes, body])
      .toString("hex")
      .match(/.{1,32}/g),
  ).toEqual([
    "4d565831010002000000000000000000",
    "00000000000000000800000000000000",
    "00000000000000000000000002000000",
    "00000000000000000000000000000000",
    "00000000000000000000000000000000",
    "00000000000000000000000000000000",
    "120000002ea371940000050000000000",
    "03000100020000006431",
  ]);
  expect(decodeHolds(decodeHeader(bytes, 0), body)).toEqual(holds);
});

test("a partial says by the shard's clock when its request was whole, where others say their deadline", () => {
  const bytes = Buffer.alloc(HEADER_BYTES);
  const arrivedUs = 0xfedc_ba98;
  encodeHeader(frameHeader(FrameKind.partial, { flags: FrameFlag.clock, arrivedUs }), bytes, 0);
  expect(bytes.subarray(52, 56).toString("hex")).toBe("98badcfe");
  expect(decodeHeader(bytes, 0)).toMatchObject({ flags: FrameFlag.clock, arrivedUs, deadlineMs: 0 });
  encodeHeader(frameHeader(FrameKind.error, { deadlineMs: 7 }), bytes, 0);
  expect(decodeHeader(bytes, 0)).toMatchObject({ arrivedUs: 0, deadlineMs: 7 });
});

test("a partial whose rows lie in the segment has the bytes written in docs/wire-format.md", () => {
  const body = Buffer.alloc(16);
  body.writeUInt32LE(2, 0);
  placeRows(body, 8, 4160);
  const sizes = { n: 2, d: 4, experts: 1, rowsType: WireType.f32, queueUs: 5, computeUs: 6, creditBytes: 72 };
  const flags = FrameFlag.segment;
  const header = frameHeader(FrameKind.partial, { call: 9, layer: 3, flags, ...sizes, bodyBytes: body.length });
  const bytes = Buffer.alloc(HEADER_BYTES);
  encodeHeader(header, bytes, 0);
  expect(
    Buffer.concat([bytes, body])
      .toString("hex")
      .match(/.{1,32}/g),
  ).toEqual([
    "4d565831010005040900000000000000",
    "03000000000000000000000000000000",
    "01000000020000000400000000000000",
    "01000000000000000500000006000000",
    "48000000000000000000000000000000",
    "00000000000000000000000000000000",
    "1000000022b789f00200000000000000",
    "4010000000000000",
  ]);
  const decoded = decodeHeader(bytes, 0);
  expect(decoded).toEqual(header);
  expect(readPlace(body, rowsAt(decoded))).toBe(4160);
  expect(wholeBytes(decoded), "as if the rows lay in it").toBe(8 + 2 * 4 * 4);
});

test("a changed header byte is refused", () => {
  const bytes = Buffer.alloc(HEADER_BYTES);
  encodeHeader(golden, bytes, 0);
  fc.assert(
    fc.property(fc.nat(HEADER_BYTES - 1), fc.integer({ min: 1, max: 255 }), (at, flip) => {
      const altered = Buffer.from(bytes);
      altered[at] = (altered[at] ?? 0) ^ flip;
      expect(() => decodeHeader(altered, 0)).toThrow(MoevieError);
    }),
  );
});

/** Feeds bytes in pieces; returns what came out and what was refused. Any untyped throw fails the test. */
/** Puts bytes where the reader wants them. */
function feed(reader: FrameReader, chunk: Uint8Array): void {
  for (let at = 0; at < chunk.length;) {
    const target = reader.target();
    const bytes = Math.min(target.length, chunk.length - at);
    target.set(chunk.subarray(at, at + bytes));
    reader.advance(bytes);
    at += bytes;
  }
}

function read(
  bytes: Uint8Array,
  cuts: readonly number[],
): { frames: FrameHeader[]; allocated: number; error?: MoevieError } {
  const frames: FrameHeader[] = [];
  let allocated = 0;
  const reader = new FrameReader({
    allocate: (header) => {
      allocated = Math.max(allocated, header.bodyBytes);
      return new Uint8Array(header.bodyBytes);
    },
    frame: (header, body) => {
      expect(body.length).toBe(header.bodyBytes);
      if (header.kind === FrameKind.request) decodeExpertRows(header, body.buffer, 0);
      frames.push(header);
    },
  });
  try {
    let at = 0;
    for (const cut of [...cuts, bytes.length]) {
      feed(reader, bytes.subarray(at, Math.min(bytes.length, at + cut)));
      at = Math.min(bytes.length, at + cut);
    }
  } catch (error) {
    expect(error).toBeInstanceOf(MoevieError);
    return { frames, allocated, error: error as MoevieError };
  }
  return { frames, allocated };
}

const cuts = fc.array(fc.integer({ min: 1, max: 300 }), { maxLength: 40 });

test("any bytes give frames or a typed error, never more memory than the limit", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 600 }), cuts, (bytes, pieces) => {
      expect(read(bytes, pieces).allocated).toBeLessThanOrEqual(BODY_BYTES_MAX);
    }),
    { numRuns: 500 },
  );
});

const numbers = fc.record({
  kind: fc.integer({ min: 0, max: 8 }),
  n: fc.oneof(fc.nat(4), fc.nat(0xffff_ffff)),
  d: fc.oneof(fc.nat(4), fc.nat(0xffff_ffff)),
  entries: fc.oneof(fc.nat(4), fc.nat(0xffff_ffff)),
  experts: fc.oneof(fc.nat(4), fc.nat(0xffff_ffff)),
  rowsType: fc.nat(5),
  layer: fc.nat(0xffff_ffff),
});

test("headers with any sizes and a right checksum give frames or a typed error", () => {
  fc.assert(
    fc.property(numbers, fc.uint8Array({ maxLength: 200 }), cuts, (sizes, body, pieces) => {
      const header = { ...frameHeader(FrameKind.request), ...sizes } as FrameHeader;
      read(smallMessage(header, body), pieces);
    }),
    { numRuns: 1000 },
  );
});

test("well-formed requests survive any cutting into pieces; contradicting ones are refused", () => {
  fc.assert(
    fc.property(
      fc.nat(3),
      fc.integer({ min: 1, max: 4 }),
      fc.nat(5),
      fc.nat(3),
      fc.boolean(),
      cuts,
      (n, d, entries, experts, sound, pieces) => {
        const layout = requestLayout(n, d, entries, experts, WireType.f32);
        const body = Buffer.alloc(layout.total);
        for (let j = 1; j <= experts; j++) body.writeUInt32LE(j === experts ? entries : 0, j * 4);
        for (let j = 0; j < experts; j++) body.writeUInt16LE(j, layout.experts + j * 2);
        if (!sound && entries > 0) body.writeUInt32LE(n, layout.rowIndex);
        const header = frameHeader(FrameKind.request, { n, d, entries, experts, rowsType: WireType.f32 });
        const message = smallMessage(header, body);
        const result = read(Buffer.concat([message, message]), pieces);
        const valid = entries === 0 || (sound && n > 0 && experts > 0);
        expect(result.error?.reason).toBe(valid ? undefined : "INVALID_FIELD");
        if (valid) expect(result.frames).toHaveLength(2);
      },
    ),
    { numRuns: 300 },
  );
});
