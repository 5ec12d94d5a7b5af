// What a safetensors file begins with, for tensors whose data will follow in order. Pure.
import { elementBytes, elementCount, type ElementType } from "./element-type.ts";
import { SAFETENSORS_LENGTH_BYTES } from "./safetensors.ts";

/** Headers end at a multiple of this, so that data is aligned. */
const ALIGNMENT = 8;

export type NewTensor = { readonly name: string; readonly dtype: ElementType; readonly shape: readonly number[] };

/** Length and header of a file that holds `tensors`, whose data follows without gaps. */
export function safetensorsHead(tensors: readonly NewTensor[]): Uint8Array {
  const entries: Record<string, object> = {};
  let at = 0;
  for (const { name, dtype, shape } of tensors) {
    const end = at + elementCount(shape) * elementBytes(dtype);
    entries[name] = { dtype: dtype.toUpperCase(), shape, data_offsets: [at, end] };
    at = end;
  }
  const json = new TextEncoder().encode(JSON.stringify(entries));
  const padded = Math.ceil(json.length / ALIGNMENT) * ALIGNMENT;
  const head = new Uint8Array(SAFETENSORS_LENGTH_BYTES + padded).fill(" ".charCodeAt(0));
  new DataView(head.buffer).setBigUint64(0, BigInt(padded), true);
  head.set(json, SAFETENSORS_LENGTH_BYTES);
  return head;
}
