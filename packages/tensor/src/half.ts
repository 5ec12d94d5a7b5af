// Conversions between float32 and the narrow floats of weights and wire. Pure and allocation free: callers own both arrays.
// All narrowing rounds to nearest, ties to even; infinities stay infinite, NaN stays NaN, zero keeps its sign.

const scratchF32 = new Float32Array(1);
const scratchBits = new Uint32Array(scratchF32.buffer);

function checkRoom(have: number, need: number): void {
  if (have < need) throw new RangeError(`target holds ${have} elements, ${need} are needed`);
}

/** The 32-bit words of a float32 array (same memory). */
function bitsOf(values: Float32Array): Uint32Array {
  return new Uint32Array(values.buffer, values.byteOffset, values.length);
}

/** Narrows `source` [n] to bfloat16 bit patterns in `target` [>= n]. */
export function f32ToBf16(source: Float32Array, target: Uint16Array): void {
  checkRoom(target.length, source.length);
  const bits = bitsOf(source);
  for (let i = 0; i < bits.length; i++) {
    const word = bits[i]!;
    if ((word & 0x7fffffff) > 0x7f800000) target[i] = (word >>> 16) | 0x40;
    else target[i] = (word + 0x7fff + ((word >>> 16) & 1)) >>> 16;
  }
}

/** Widens bfloat16 bit patterns to float32, exactly. */
export function bf16ToF32(source: Uint16Array, target: Float32Array): void {
  checkRoom(target.length, source.length);
  const bits = bitsOf(target);
  for (let i = 0; i < source.length; i++) bits[i] = source[i]! << 16;
}

/** The float16 bits of a float32 whose exponent is below float16's normal range; `word` has no sign. */
function subnormalF16(word: number): number {
  const shift = 126 - (word >>> 23);
  if (shift > 24) return 0;
  const mantissa = (word & 0x7fffff) | 0x800000;
  const kept = mantissa >>> shift;
  const rest = mantissa & ((1 << shift) - 1);
  const half = 1 << (shift - 1);
  return rest > half || (rest === half && (kept & 1) === 1) ? kept + 1 : kept;
}

/** Narrows `source` [n] to float16 bit patterns in `target` [>= n]; values beyond 65504 round to infinity. */
export function f32ToF16(source: Float32Array, target: Uint16Array): void {
  checkRoom(target.length, source.length);
  const bits = bitsOf(source);
  for (let i = 0; i < bits.length; i++) {
    const sign = (bits[i]! >>> 16) & 0x8000;
    const word = bits[i]! & 0x7fffffff;
    let half: number;
    if (word > 0x7f800000) half = 0x7e00 | ((word >>> 13) & 0x1ff);
    else if (word >= 0x47800000) half = 0x7c00;
    else if (word >= 0x38800000) half = (word - 0x38000000 + 0xfff + ((word >>> 13) & 1)) >>> 13;
    else half = subnormalF16(word);
    target[i] = sign | half;
  }
}

/** The float32 bits of one small float of `exponentBits` and `mantissaBits`, normal or subnormal. */
function widenBits(code: number, exponentBits: number, mantissaBits: number): number {
  const sign = (code >>> (exponentBits + mantissaBits)) & 1;
  const exponent = (code >>> mantissaBits) & ((1 << exponentBits) - 1);
  const mantissa = code & ((1 << mantissaBits) - 1);
  const bias = (1 << (exponentBits - 1)) - 1;
  const scale = exponent === 0 ? 2 ** (1 - bias - mantissaBits) : 2 ** (exponent - bias - mantissaBits);
  const magnitude = (exponent === 0 ? mantissa : mantissa + (1 << mantissaBits)) * scale;
  scratchF32[0] = magnitude;
  return (scratchBits[0]! | (sign << 31)) >>> 0;
}

function tableOf(
  codes: number,
  exponentBits: number,
  mantissaBits: number,
  special: (code: number) => number | undefined,
): Uint32Array {
  const table = new Uint32Array(codes);
  for (let code = 0; code < codes; code++) table[code] = special(code) ?? widenBits(code, exponentBits, mantissaBits);
  return table;
}

/** Top exponent reserved for infinity and NaN, as in IEEE 754. */
function ieeeSpecial(exponentBits: number, mantissaBits: number): (code: number) => number | undefined {
  const top = ((1 << exponentBits) - 1) << mantissaBits;
  const signShift = exponentBits + mantissaBits;
  return (code) => {
    if ((code & top) !== top) return undefined;
    const mantissa = code & ((1 << mantissaBits) - 1);
    const quiet = mantissa === 0 ? 0 : 0x400000 | (mantissa << (23 - mantissaBits));
    return (((code >>> signShift) << 31) | 0x7f800000 | quiet) >>> 0;
  };
}

let f16Table: Uint32Array | undefined;
let e4m3Table: Uint32Array | undefined;
let e5m2Table: Uint32Array | undefined;

function widenByTable(source: Uint16Array | Uint8Array, table: Uint32Array, target: Float32Array): void {
  checkRoom(target.length, source.length);
  const bits = bitsOf(target);
  for (let i = 0; i < source.length; i++) bits[i] = table[source[i]!]!;
}

/** Widens float16 bit patterns to float32, exactly. */
export function f16ToF32(source: Uint16Array, target: Float32Array): void {
  f16Table ??= tableOf(65536, 5, 10, ieeeSpecial(5, 10));
  widenByTable(source, f16Table, target);
}

/** Widens float8 e4m3 (no infinities, one NaN code a sign) to float32, exactly. */
export function f8E4m3ToF32(source: Uint8Array, target: Float32Array): void {
  e4m3Table ??= tableOf(256, 4, 3, (code) => ((code & 0x7f) === 0x7f ? 0x7fc00000 : undefined));
  widenByTable(source, e4m3Table, target);
}

/** Widens float8 e5m2 to float32, exactly. */
export function f8E5m2ToF32(source: Uint8Array, target: Float32Array): void {
  e5m2Table ??= tableOf(256, 5, 2, ieeeSpecial(5, 2));
  widenByTable(source, e5m2Table, target);
}
