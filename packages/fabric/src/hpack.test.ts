// Header compression against the examples of RFC 7541, appendix C, and against anything at all.
import * as fc from "fast-check";
import { MoevieError } from "@moevie/contracts";
import { expect, test } from "vitest";
import { HpackDecoder, encodeHeaders } from "./hpack.ts";

function hex(text: string): Uint8Array {
  return Buffer.from(text.replaceAll(" ", ""), "hex");
}

const REQUEST = [
  [":method", "GET"],
  [":scheme", "http"],
  [":path", "/"],
  [":authority", "www.example.com"],
];

test.each([
  [
    "C.3, plain",
    "828684410f7777772e6578616d706c652e636f6d",
    "828684be58086e6f2d6361636865",
    "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
  ],
  [
    "C.4, Huffman",
    "828684418cf1e3c2e5f23a6ba0ab90f4ff",
    "828684be5886a8eb10649cbf",
    "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
  ],
])("requests of %s: the dynamic table goes on from block to block", (_name, first, second, third) => {
  const decoder = new HpackDecoder();
  expect([...decoder.decode(hex(first))]).toEqual(REQUEST);
  expect([...decoder.decode(hex(second))]).toEqual([...REQUEST, ["cache-control", "no-cache"]]);
  expect([...decoder.decode(hex(third))]).toEqual([
    [":method", "GET"],
    [":scheme", "https"],
    [":path", "/index.html"],
    [":authority", "www.example.com"],
    ["custom-key", "custom-value"],
  ]);
});

test("a table made smaller forgets its oldest entries", () => {
  const decoder = new HpackDecoder();
  decoder.decode(hex("400a637573746f6d2d6b65790c637573746f6d2d76616c7565"));
  expect([...decoder.decode(hex("be"))]).toEqual([["custom-key", "custom-value"]]);
  expect(() => decoder.decode(hex("20 be"))).toThrow("no header at index 62");
  expect(() => decoder.decode(hex("3fe23f"))).toThrow("at most 4096");
});

test("what is encoded is decoded, whatever the length", () => {
  const text = fc.string({ unit: fc.constantFrom(..."abcXYZ019-_/.%".split("")), maxLength: 600 });
  fc.assert(
    fc.property(fc.uniqueArray(fc.tuple(text, text), { maxLength: 20, selector: ([name]) => name }), (headers) => {
      expect([...new HpackDecoder().decode(encodeHeaders(headers))]).toEqual(headers);
    }),
  );
});

test("any bytes give headers or a typed error", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      try {
        new HpackDecoder().decode(bytes);
      } catch (thrown) {
        expect(thrown).toBeInstanceOf(MoevieError);
      }
    }),
    { numRuns: 2000 },
  );
});
