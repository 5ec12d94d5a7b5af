// Small safetensors files for tests: whole files in memory, as f32. Not for product code, which reads headers only.
import { readFileSync, writeFileSync } from "node:fs";
import { elementCount, f32ToF16, parseSafetensors, widenToF32 } from "@moevie/tensor";

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

/** Writes `tensors` as f16, or f32 when asked. */
export function writeTensors(file: string, tensors: ReadonlyMap<string, Dense>, dtype: "f16" | "f32" = "f16"): void {
  const header: Record<string, unknown> = {};
  const bodies: Uint8Array[] = [];
  let at = 0;
  for (const [name, { shape, data }] of tensors) {
    const half = new Uint16Array(dtype === "f16" ? data.length : 0);
    if (dtype === "f16") f32ToF16(data, half);
    const body =
      dtype === "f16" ? new Uint8Array(half.buffer) : new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
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
