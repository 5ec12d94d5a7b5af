// The edge of a Decode call: head and chunks in, a valid request out. Nothing inside re-checks.
import {
  MoevieError,
  REFERENCE_NAME,
  isReferenceName,
  limit,
  type DecodeHead,
  type DecodeRequest,
  type ElementType,
  type FieldViolation,
} from "@moevie/contracts";
import { elementBytes, widenToF32 } from "@moevie/tensor";
import type { PictureShape } from "./media/filter-chain.ts";
import type { Latent } from "./vae/causal-decoder.ts";

/** What the served bundle fixes. */
export interface ServedModel {
  readonly digest: string;
  readonly frameRate: number;
  readonly steadyLevels: number;
  readonly channels: number;
  readonly temporalStride: number;
  /** Pixels a side that one cell of the latent becomes. */
  readonly pixelsPerCell: number;
}

export interface ValidDecode {
  readonly latent: Latent;
  readonly from: PictureShape;
  readonly to: PictureShape;
  readonly frameCount: number;
  readonly comment: string;
  /** Name in the reference folder under which the pictures are kept as decoded; empty: they are not. */
  readonly saveFrames: string;
  readonly colorCorrection: boolean;
  /** Levels within which still places are averaged over time; 0: not at all. */
  readonly steadyLevels: number;
  /** Frames the model makes of the latent. */
  readonly pictureCount: number;
}

const COMMENT_CHARACTERS_MAX = 1000;

const ELEMENT_TYPES: Readonly<Record<ElementType, "f32" | "bf16" | "f16" | undefined>> = {
  ELEMENT_TYPE_UNSPECIFIED: undefined,
  ELEMENT_TYPE_F32: "f32",
  ELEMENT_TYPE_BF16: "bf16",
  ELEMENT_TYPE_F16: "f16",
};

/** Reads a whole request. Throws BUNDLE_MISMATCH, INVALID_FIELD. */
export async function readDecodeRequest(
  requests: AsyncIterable<DecodeRequest>,
  model: ServedModel,
): Promise<ValidDecode> {
  let head: DecodeHead | undefined;
  let bytes = new Uint8Array(0);
  let filled = 0;
  // By hand, not for await: leaving that loop early ends the whole call, and a refusal could not be sent any more.
  const parts = requests[Symbol.asyncIterator]();
  for (let part = await parts.next(); part.done !== true; part = await parts.next()) {
    const { head: sent, chunk } = part.value;
    if (sent !== undefined) {
      if (head !== undefined) throw invalid([{ field: "head", description: "sent twice; one is allowed, first" }]);
      head = sent;
      bytes = new Uint8Array(checkHead(head, model));
    } else if (head === undefined)
      throw invalid([{ field: "head", description: "missing; it comes before the chunks" }]);
    else if (chunk !== undefined) {
      if (filled + chunk.length > bytes.length)
        throw invalid([{ field: "chunk", description: `more than the ${bytes.length} bytes the shape needs` }]);
      bytes.set(chunk, filled);
      filled += chunk.length;
    }
  }
  if (head === undefined) throw invalid([{ field: "head", description: "missing" }]);
  if (filled !== bytes.length)
    throw invalid([{ field: "chunk", description: `${filled} bytes in all; the shape needs ${bytes.length}` }]);
  return validDecode(head, bytes, model);
}

/** Bytes the latent must have. */
function checkHead(head: DecodeHead, model: ServedModel): number {
  if (head.bundleDigest !== model.digest)
    throw new MoevieError("BUNDLE_MISMATCH", "The decoder serves another bundle than the call names.", {
      detail: `asked ${head.bundleDigest}, serving ${model.digest}`,
    });
  const violations = [...latentViolations(head, model), ...clipViolations(head, model)];
  if (violations.length > 0) throw invalid(violations);
  return latentBytes(head);
}

function latentBytes({ latent }: DecodeHead): number {
  const type = ELEMENT_TYPES[latent?.elementType ?? "ELEMENT_TYPE_UNSPECIFIED"];
  return type === undefined ? 0 : (latent?.shape ?? []).reduce((product, size) => product * size, elementBytes(type));
}

function latentViolations(head: DecodeHead, model: ServedModel): FieldViolation[] {
  const { elementType = "ELEMENT_TYPE_UNSPECIFIED", shape = [] } = head.latent ?? {};
  const violations: FieldViolation[] = [];
  if (ELEMENT_TYPES[elementType] === undefined)
    violations.push({ field: "head.latent.element_type", description: `${elementType}; allowed: F32, BF16, F16` });
  if (shape.length !== 4 || shape[0] !== model.channels || shape.some((size) => size < 1)) {
    violations.push({
      field: "head.latent.shape",
      description: `[${shape.join(", ")}]; allowed: [${model.channels}, frames, height, width], none of them 0`,
    });
  } else if (latentBytes(head) > limit("latentBytesMax")) {
    violations.push({
      field: "head.latent.shape",
      description: `[${shape.join(", ")}] is ${latentBytes(head)} bytes; allowed: up to ${limit("latentBytesMax")}`,
    });
  }
  return violations;
}

function clipViolations(head: DecodeHead, model: ServedModel): FieldViolation[] {
  const violations: FieldViolation[] = [];
  const [least, most, multiple] = [limit("sidePixelsMin"), limit("sidePixelsMax"), limit("sidePixelsMultiple")];
  for (const side of ["width", "height"] as const) {
    const value = head[side];
    if (value < least || value > most || value % multiple !== 0)
      violations.push({
        field: `head.${side}`,
        description: `${value}; allowed: ${least} to ${most}, a multiple of ${multiple}`,
      });
  }
  if (head.saveFrames !== "" && !isReferenceName(head.saveFrames))
    violations.push({ field: "head.save_frames", description: `"${head.saveFrames}"; allowed: ${REFERENCE_NAME}` });
  if (head.comment.length > COMMENT_CHARACTERS_MAX)
    violations.push({
      field: "head.comment",
      description: `${head.comment.length} characters; allowed: up to ${COMMENT_CHARACTERS_MAX}`,
    });
  if (head.fps < 1 || head.fps > limit("fpsMax"))
    violations.push({ field: "head.fps", description: `${head.fps}; allowed: 1 to ${limit("fpsMax")}` });
  const covered = Math.floor((modelFrames(head.latent?.shape[1] ?? 0, model) * head.fps) / model.frameRate);
  const longest = Math.min(covered, limit("clipSecondsMax") * head.fps);
  if (head.frameCount < 1 || head.frameCount > longest)
    violations.push({
      field: "head.frame_count",
      description: `${head.frameCount}; allowed: 1 to ${longest}, what this latent covers at ${head.fps} fps`,
    });
  return violations;
}

/** Frames the model makes of so many latent frames. */
function modelFrames(latentFrames: number, { temporalStride }: ServedModel): number {
  return latentFrames < 1 ? 0 : 1 + (latentFrames - 1) * temporalStride;
}

function validDecode(head: DecodeHead, bytes: Uint8Array, model: ServedModel): ValidDecode {
  const [channels = 0, frames = 0, height = 0, width = 0] = head.latent?.shape ?? [];
  const values = new Float32Array(channels * frames * height * width);
  widenToF32(ELEMENT_TYPES[head.latent?.elementType ?? "ELEMENT_TYPE_F32"] ?? "f32", bytes, values);
  return {
    latent: { values, shape: [channels, frames, height, width] },
    from: { width: width * model.pixelsPerCell, height: height * model.pixelsPerCell, fps: model.frameRate },
    to: { width: head.width, height: head.height, fps: head.fps },
    frameCount: head.frameCount,
    comment: head.comment,
    saveFrames: head.saveFrames,
    colorCorrection: head.colorCorrection,
    steadyLevels: head.colorCorrection ? model.steadyLevels : 0,
    pictureCount: modelFrames(frames, model),
  };
}

function invalid(violations: readonly FieldViolation[]): MoevieError {
  return new MoevieError(
    "INVALID_FIELD",
    violations.map(({ field, description }) => `${field}: ${description}`).join("; "),
    { violations },
  );
}
