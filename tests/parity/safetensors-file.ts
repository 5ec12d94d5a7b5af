// Small safetensors files for tests: whole files in memory, as f32. Not for product code, which reads headers only.
import { readFileSync, writeFileSync } from "node:fs";
import { elementCount, f32ToBf16, f32ToF16, parseSafetensors, widenToF32 } from "@moevie/tensor";

export type Dense = { readonly shape: readonly number[]; readonly data: Float32Array };

/** Every tensor of `file` as f32 (whole numbers too: ids are small). */
export function readTensors(file: string): Map<string, Dense> {
  const bytes = new Uint8Array(readFileSync(file));
  const tensors = new Map<string, Dense>();
  for (const [name, { dtype, shape, offset, length }] of parseSafetensors(file, bytes)) {
    const data = new Float32Array(elementCount(shape));
    const body = bytes.slice(offset, offset + length);
    if (dtype === "i64") data.set(Array.from(new BigInt64Array(body.buffer), Number));
    else if (dtype === "u8") data.set(body);
    else if (dtype === "i32") data.set(new Int32Array(body.buffer));
    else widenToF32(dtype, body, data);
    tensors.set(name, { shape, data });
  }
  return tensors;
}

/** Floats that `writeTensors` can store. */
export type StoredFloat = "f32" | "f16" | "bf16" | "f8_e4m3";

/** Every finite f8_e4m3 value in order, with its byte. */
const F8_VALUES = ((): readonly (readonly [value: number, byte: number])[] => {
  const decoded = new Float32Array(256);
  widenToF32("f8_e4m3", Uint8Array.from(decoded.keys()), decoded);
  return Array.from(decoded, (value, byte) => [value, byte] as const)
    .filter(([value]) => Number.isFinite(value))
    .toSorted(([a], [b]) => a - b);
})();

/** The byte of the nearest f8_e4m3 value; which of two equally near is of no matter to a test that reads back what it wrote. */
function f8Byte(value: number): number {
  return F8_VALUES.reduce((best, next) => (Math.abs(next[0] - value) < Math.abs(best[0] - value) ? next : best))[1];
}

function encoded(data: Float32Array, dtype: StoredFloat): Uint8Array {
  if (dtype === "f32") return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  if (dtype === "f8_e4m3") return Uint8Array.from(data, f8Byte);
  const half = new Uint16Array(data.length);
  (dtype === "f16" ? f32ToF16 : f32ToBf16)(data, half);
  return new Uint8Array(half.buffer);
}

/** Writes `tensors` as f16, or as another float when asked. */
export function writeTensors(file: string, tensors: ReadonlyMap<string, Dense>, dtype: StoredFloat = "f16"): void {
  const header: Record<string, unknown> = {};
  const bodies: Uint8Array[] = [];
  let at = 0;
  for (const [name, { shape, data }] of tensors) {
    const body = encoded(data, dtype);
    header[name] = { dtype: dtype.toUpperCase(), shape, data_offsets: [at, at + body.byteLength] };
    bodies.push(body);
    at += body.byteLength;
  }
  let text = JSON.stringify(header);
  text += " ".repeat((8 - (Buffer.byteLength(text) % 8)) % 8);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(Buffer.byteLength(text)));
  writeFileSync(file, Buffer.concat([length, Buffer.from(text), ...bodies]));
}
