// Turns stored bytes of any float element type into float32. Pure; the slow parts live in half.ts.
import { elementBytes, type ElementType } from "./element-type.ts";
import { bf16ToF32, f16ToF32, f8E4m3ToF32, f8E5m2ToF32 } from "./half.ts";

/** `bytes` from an aligned start: shared when already aligned, copied when not. */
function aligned(bytes: Uint8Array, size: number): Uint8Array {
  return bytes.byteOffset % size === 0 ? bytes : Uint8Array.from(bytes);
}

/**
 * Widens little-endian `bytes` of a float type into `target` [n], exactly (f64 is rounded).
 * Throws RangeError when the bytes are no whole number of elements, TypeError for a type that is no float.
 */
export function widenToF32(type: ElementType, bytes: Uint8Array, target: Float32Array): void {
  const size = elementBytes(type);
  if (bytes.byteLength % size !== 0) throw new RangeError(`${bytes.byteLength} bytes are no whole number of ${type}`);
  const count = bytes.byteLength / size;
  const at = aligned(bytes, size);
  if (type === "f32") target.set(new Float32Array(at.buffer, at.byteOffset, count));
  else if (type === "f64") target.set(new Float64Array(at.buffer, at.byteOffset, count));
  else if (type === "f16") f16ToF32(new Uint16Array(at.buffer, at.byteOffset, count), target);
  else if (type === "bf16") bf16ToF32(new Uint16Array(at.buffer, at.byteOffset, count), target);
  else if (type === "f8_e4m3") f8E4m3ToF32(at, target);
  else if (type === "f8_e5m2") f8E5m2ToF32(at, target);
  else throw new TypeError(`${type} is no float type`);
}
