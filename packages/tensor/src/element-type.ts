// Names and sizes of the element types that moevie's files, graphs and wire carry. Data only: no conversion, no I/O.

/** Element types by their house names; safetensors spells the same names in capitals. */
export type ElementType =
  | "f64"
  | "f32"
  | "f16"
  | "bf16"
  | "f8_e4m3"
  | "f8_e5m2"
  | "i64"
  | "i32"
  | "i16"
  | "i8"
  | "u64"
  | "u32"
  | "u16"
  | "u8"
  | "bool";

const BYTES: Readonly<Record<ElementType, number>> = {
  f64: 8,
  f32: 4,
  f16: 2,
  bf16: 2,
  f8_e4m3: 1,
  f8_e5m2: 1,
  i64: 8,
  i32: 4,
  i16: 2,
  i8: 1,
  u64: 8,
  u32: 4,
  u16: 2,
  u8: 1,
  bool: 1,
};

/** Bytes of one element. */
export function elementBytes(type: ElementType): number {
  return BYTES[type];
}

/** The element type of this name, or undefined when there is none such. */
export function elementTypeNamed(name: string): ElementType | undefined {
  return Object.hasOwn(BYTES, name) ? (name as ElementType) : undefined;
}

/** Number of elements of a shape; a scalar (`[]`) has one. Throws RangeError when it is no exact integer. */
export function elementCount(shape: readonly number[]): number {
  let count = 1;
  for (const size of shape) {
    if (!Number.isSafeInteger(size) || size < 0)
      throw new RangeError(`a size of ${size} in shape [${shape.join(", ")}]`);
    count *= size;
  }
  if (!Number.isSafeInteger(count)) throw new RangeError(`shape [${shape.join(", ")}] has too many elements`);
  return count;
}
