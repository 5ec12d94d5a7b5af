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
