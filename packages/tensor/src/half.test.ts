// Narrow floats: exhaustive where the space is small, property-tested against independent arithmetic where it is not.
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { bf16ToF32, f16ToF32, f32ToBf16, f32ToF16 } from "./half.ts";

const f32Bits = fc.integer({ min: 0, max: 0xffffffff }).map((word) => new Float32Array(Uint32Array.of(word).buffer));

/** Nearest value of a float format with `mantissaBits` and smallest exponent `minExponent`, ties to even; float64 arithmetic. */
function nearest(value: number, mantissaBits: number, minExponent: number, max: number): number {
  if (!Number.isFinite(value) || value === 0) return value;
  const exponent = Math.max(Math.floor(Math.log2(Math.abs(value))), minExponent);
  const unit = 2 ** (exponent - mantissaBits);
  const scaled = value / unit;
  const low = Math.floor(scaled);
  const rest = scaled - low;
  const up = rest > 0.5 || (rest === 0.5 && low % 2 !== 0);
  const rounded = (up ? low + 1 : low) * unit;
  if (Math.abs(rounded) > max) return Math.sign(value) * Infinity;
  return rounded === 0 ? Math.sign(value) * 0 : rounded;
}

test("every finite or infinite 16-bit pattern survives widening and narrowing", () => {
  const codes = Uint16Array.from({ length: 65536 }, (_, code) => code);
  const wide = new Float32Array(65536);
  const back = new Uint16Array(65536);
  for (const [widen, narrow] of [
    [f16ToF32, f32ToF16],
    [bf16ToF32, f32ToBf16],
  ] as const) {
    widen(codes, wide);
    narrow(wide, back);
    for (let code = 0; code < 65536; code++) {
      if (Number.isNaN(wide[code])) expect((back[code]! ^ code) & 0x8000).toBe(0);
      else expect(back[code]).toBe(code);
    }
  }
});

test("narrowing rounds to nearest, ties to even, and keeps NaN, infinity and the sign of zero", () => {
  const code = new Uint16Array(1);
  const wide = new Float32Array(1);
  fc.assert(
    fc.property(f32Bits, (value) => {
      f32ToBf16(value, code);
      bf16ToF32(code, wide);
      expect(wide[0]).toBe(nearest(value[0]!, 7, -126, 3.3895313892515355e38));
      f32ToF16(value, code);
      f16ToF32(code, wide);
      expect(wide[0]).toBe(nearest(value[0]!, 10, -14, 65504));
    }),
    { numRuns: 5000 },
  );
});

test("float16 rounding is right around its subnormals and its largest value", () => {
  const code = new Uint16Array(1);
  const wide = new Float32Array(1);
  fc.assert(
    fc.property(fc.double({ min: -70000, max: 70000, noNaN: true }), fc.integer({ min: 0, max: 30 }), (base, shift) => {
      const value = Float32Array.of(base / 2 ** shift);
      f32ToF16(value, code);
      f16ToF32(code, wide);
      expect(wide[0]).toBe(nearest(value[0]!, 10, -14, 65504));
    }),
    { numRuns: 5000 },
  );
});

test("a target that is too small is refused", () => {
  expect(() => f32ToBf16(new Float32Array(2), new Uint16Array(1))).toThrow(/holds 1 elements, 2 are needed/);
});
