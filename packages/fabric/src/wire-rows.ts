// Rows between f32 in memory and the element type on the wire. Pure copies: no row is ever summed here.
import { bf16ToF32, f16ToF32, f32ToBf16, f32ToF16 } from "@moevie/tensor";
import { exchangeError } from "./exchange-error.ts";
import { WireType } from "./frame.ts";

/**
 * Copies the rows `rows[0..n)` of `source` [·, d] to `target` at byte `at` (a multiple of 4) in the wire's type.
 * Neighbouring rows are copied as one run.
 */
export function gatherRows(
  source: Float32Array,
  rows: Uint32Array,
  d: number,
  type: WireType,
  target: ArrayBufferLike,
  at: number,
): void {
  const n = rows.length;
  const put = writerOf(type, target, at, n * d);
  for (let start = 0; start < n;) {
    const first = rows[start] ?? 0;
    let end = start + 1;
    while (end < n && rows[end] === first + end - start) end++;
    const run = source.subarray(first * d, (first + end - start) * d);
    if (run.length !== (end - start) * d) throw exchangeError("INTERNAL", "row index beyond the source rows");
    put(run, start * d);
    start = end;
  }
}

/** Writes `values` to `target` at byte `at`, in the wire's type. */
export function packRows(values: Float32Array, type: WireType, target: ArrayBufferLike, at: number): void {
  writerOf(type, target, at, values.length)(values, 0);
}

/** Puts values into `count` elements of the wire's type at byte `at` of `target`, from an element on. */
function writerOf(
  type: WireType,
  target: ArrayBufferLike,
  at: number,
  count: number,
): (values: Float32Array, from: number) => void {
  if (type === WireType.f32) {
    const whole = new Float32Array(target, at, count);
    return (values, from) => whole.set(values, from);
  }
  const whole = new Uint16Array(target, at, count);
  const round = type === WireType.bf16 ? f32ToBf16 : f32ToF16;
  return (values, from) => round(values, whole.subarray(from, from + values.length));
}

/** Widens `count` elements of `source` at byte `at` into `target`. */
export function unpackRows(
  source: ArrayBufferLike,
  at: number,
  type: WireType,
  count: number,
  target: Float32Array,
): void {
  if (type === WireType.f32) target.set(new Float32Array(source, at, count));
  else if (type === WireType.bf16) bf16ToF32(new Uint16Array(source, at, count), target);
  else f16ToF32(new Uint16Array(source, at, count), target);
}
