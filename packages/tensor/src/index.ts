// Public entry of @moevie/tensor: element types, narrow floats, row gathering and the safetensors header. Pure, imports nothing of ours.
export { elementBytes, elementCount, elementTypeNamed, type ElementType } from "./element-type.ts";
export { bf16ToF32, f16ToF32, f32ToBf16, f32ToF16, f8E4m3ToF32, f8E5m2ToF32 } from "./half.ts";
export {
  parseSafetensors,
  parseSafetensorsHeader,
  SAFETENSORS_HEADER_BYTES_MAX,
  SAFETENSORS_LENGTH_BYTES,
  safetensorsHeaderBytes,
  SafetensorsError,
  type StoredTensor,
} from "./safetensors.ts";
export { safetensorsHead, type NewTensor } from "./safetensors-head.ts";
export { widenToF32 } from "./widen.ts";
