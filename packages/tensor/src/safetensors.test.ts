// The header reader against files with a recorded verdict, and against damaged copies of good ones.
import { readFileSync } from "node:fs";
import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { parseSafetensors, SafetensorsError } from "./safetensors.ts";
import { widenToF32 } from "./widen.ts";

type Expected = { dtype: string; shape: number[]; values: (number | string)[]; float32_bits_hex?: string[] };
type Case = { file: string; expect: "accept" | "reject"; reason: string; tensors?: Record<string, Expected> };

const folder = new URL("./fixtures/", import.meta.url);
const cases = JSON.parse(readFileSync(new URL("cases.json", folder), "utf8")) as Record<string, Case>;

describe("recorded files", () => {
  for (const [name, found] of Object.entries(cases)) {
    test(`${name} is ${found.expect}ed: ${found.reason}`, () => {
      const bytes = new Uint8Array(readFileSync(new URL(found.file, folder)));
      if (found.expect === "reject") {
        expect(() => parseSafetensors(found.file, bytes)).toThrow(SafetensorsError);
        expect(() => parseSafetensors(found.file, bytes)).toThrow(found.file);
        return;
      }
      const tensors = parseSafetensors(found.file, bytes);
      expect([...tensors.keys()].sort()).toEqual(Object.keys(found.tensors ?? {}).sort());
      for (const [key, want] of Object.entries(found.tensors ?? {})) {
        const tensor = tensors.get(key)!;
        expect(tensor.dtype.toUpperCase()).toBe(want.dtype);
        expect(tensor.shape).toEqual(want.shape);
        const values = new Float32Array(want.values.length);
        widenToF32(tensor.dtype, bytes.subarray(tensor.offset, tensor.offset + tensor.length), values);
        expect([...values].map(String)).toEqual(
          want.values.map((value) => String(value === "NaN" ? NaN : Math.fround(Number(value)))),
        );
        const words = new Uint32Array(values.buffer);
        for (const [i, hex] of (want.float32_bits_hex ?? []).entries()) {
          if (!Number.isNaN(values[i])) expect(words[i]!.toString(16).padStart(8, "0")).toBe(hex);
        }
      }
    });
  }
});

/** A file of this header and `dataBytes` zeros. */
function fileOf(header: string, dataBytes = 0): Uint8Array {
  const json = Buffer.from(header);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  return Buffer.concat([length, json, Buffer.alloc(dataBytes)]);
}
const entryOf = (dtype: string, shape: string, offsets: string): string =>
  `{"t":{"dtype":${dtype},"shape":${shape},"data_offsets":${offsets}}}`;

describe("hostile headers", () => {
  test.each([
    ["a size that is no number", entryOf('"F32"', "[null]", "[0,4]"), /shape \[null\], expected sizes/],
    ["an infinite size", entryOf('"F32"', "[1e999]", "[0,4]"), /expected sizes of 0 or more/],
    ["a negative size", entryOf('"F32"', "[-1]", "[0,4]"), /shape \[-1\], expected sizes/],
    ["half an element", entryOf('"F32"', "[0.5]", "[0,2]"), /shape \[0\.5\], expected sizes/],
    [
      "a count beyond any memory",
      entryOf('"F32"', "[9007199254740991,9007199254740991]", "[0,4]"),
      /too many elements/,
    ],
    ["more elements than bytes", entryOf('"F32"', "[4294967296]", "[0,4]"), /span 4 bytes, expected 17179869184/],
    ["offsets that run backwards", entryOf('"F32"', "[1]", "[4,0]"), /span -4 bytes, expected 4/],
    ["a type that only objects have", entryOf('"CONSTRUCTOR"', "[1]", "[0,4]"), /unknown dtype "CONSTRUCTOR"/],
    ["an entry that is no object", '{"t":7}', /entry is not an object/],
    ["metadata that is no text", '{"__metadata__":{"format":[1]}}', /__metadata__ is .*expected texts by name/],
    ["a list", "[]", /not a JSON object/],
    ["white space before the object", " {}", /not a JSON object/],
    ["brackets without end", "[".repeat(100_000), /not JSON/],
  ])("%s is refused by name", (_what, header, message) => {
    const bytes = fileOf(header, 4);
    expect(() => parseSafetensors("x", bytes)).toThrow(SafetensorsError);
    expect(() => parseSafetensors("x", bytes)).toThrow(message);
  });

  test("a key named like a part of every object is a tensor like any other, and twice is twice", () => {
    const one = '"__proto__":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}';
    expect([...parseSafetensors("x", fileOf(`{${one}}`, 4)).keys()]).toEqual(["__proto__"]);
    const escaped = one.replace("__proto__", "\\u005f_proto__");
    expect(() => parseSafetensors("x", fileOf(`{${one},${escaped}}`, 4))).toThrow(/"__proto__" appears twice/);
  });

  test("what is said of them stays short", () => {
    const long = "x".repeat(1_000_000);
    const many = `[${"1,".repeat(500_000)}-1]`;
    for (const header of [
      `{"${long}":7}`,
      `{"${long}":{},"${long}":{}}`,
      entryOf(`"${long}"`, "[1]", "[0,4]"),
      entryOf('"F32"', many, "[0,4]"),
      entryOf('"F32"', "[1]", many),
      entryOf('"F32"', many.replace("-1", "2"), "[0,4]"),
    ]) {
      const message = ((): string => {
        try {
          parseSafetensors("x", fileOf(header, 4));
        } catch (error) {
          return (error as Error).message;
        }
        return "";
      })();
      expect(message.length).toBeGreaterThan(0);
      expect(message.length).toBeLessThan(500);
    }
  });
});

test("a damaged file is either read or refused with a SafetensorsError, never anything else", () => {
  const good = new Uint8Array(readFileSync(new URL("valid_empty_tensor.safetensors", folder)));
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(good.length - 1), fc.integer({ min: 0, max: 255 })), { maxLength: 4 }),
      fc.nat(good.length),
      (edits, cut) => {
        const bytes = good.slice(0, cut % 7 === 0 ? cut : good.length);
        for (const [at, value] of edits) if (at < bytes.length) bytes[at] = value;
        try {
          for (const tensor of parseSafetensors("x", bytes).values())
            expect(tensor.offset + tensor.length).toBeLessThanOrEqual(bytes.length);
        } catch (error) {
          expect(error).toBeInstanceOf(SafetensorsError);
        }
      },
    ),
    { numRuns: 2000 },
  );
});
