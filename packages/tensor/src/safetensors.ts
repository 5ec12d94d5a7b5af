// Reads the header of a safetensors file from bytes already in memory, strictly: whatever it accepts can be mapped safely.
// Pure: opening files is left to the callers. Format: https://github.com/huggingface/safetensors (8 bytes length, JSON, data).
import { elementBytes, elementCount, elementTypeNamed, type ElementType } from "./element-type.ts";

/** Longest header accepted, as in the reference reader. */
export const SAFETENSORS_HEADER_BYTES_MAX = 100_000_000;
/** Bytes before the header: its length, little-endian. */
export const SAFETENSORS_LENGTH_BYTES = 8;

/** Longest piece of a header that a message repeats, in characters. */
const SHOWN_CHARACTERS_MAX = 80;

/** Where one tensor lies; `offset` counts from the start of the file. */
export type StoredTensor = {
  readonly name: string;
  readonly dtype: ElementType;
  readonly shape: readonly number[];
  readonly offset: number;
  readonly length: number;
};

/** A file that is not what its format says; the message names the file and what was expected. */
export class SafetensorsError extends Error {
  readonly file: string;
  constructor(file: string, what: string) {
    super(`${file}: ${what}`);
    this.name = "SafetensorsError";
    this.file = file;
  }
}

/** `value` as a message may show it: a hostile header must not come back whole. */
function shown(value: unknown): string {
  const text = JSON.stringify(value) ?? "missing";
  return text.length <= SHOWN_CHARACTERS_MAX ? text : `${text.slice(0, SHOWN_CHARACTERS_MAX)}…`;
}

/** Length of the header in bytes from the first 8 bytes of a file of `fileBytes`. Throws SafetensorsError. */
export function safetensorsHeaderBytes(file: string, start: Uint8Array, fileBytes: number): number {
  if (fileBytes < SAFETENSORS_LENGTH_BYTES || start.byteLength < SAFETENSORS_LENGTH_BYTES) {
    throw new SafetensorsError(
      file,
      `is ${fileBytes} bytes long, expected at least ${SAFETENSORS_LENGTH_BYTES} for the header length`,
    );
  }
  const wide = new DataView(start.buffer, start.byteOffset, start.byteLength).getBigUint64(0, true);
  if (wide > BigInt(SAFETENSORS_HEADER_BYTES_MAX)) {
    throw new SafetensorsError(file, `header length ${wide}, expected at most ${SAFETENSORS_HEADER_BYTES_MAX}`);
  }
  const length = Number(wide);
  if (SAFETENSORS_LENGTH_BYTES + length > fileBytes) {
    throw new SafetensorsError(file, `header of ${length} bytes ends beyond the file of ${fileBytes} bytes`);
  }
  return length;
}

/** Names of keys that appear twice in one object of valid JSON `text`: JSON.parse would silently keep the last. */
function repeatedKey(text: string): string | undefined {
  const objects: Set<string>[] = [];
  let lastString = "";
  for (let i = 0; i < text.length; i++) {
    const character = text[i];
    if (character === "{") objects.push(new Set());
    else if (character === "}") objects.pop();
    else if (character === '"') {
      const start = i;
      for (i++; text[i] !== '"'; i++) if (text[i] === "\\") i++;
      lastString = JSON.parse(text.slice(start, i + 1)) as string;
    } else if (character === ":") {
      const keys = objects.at(-1);
      if (keys?.has(lastString)) return lastString;
      keys?.add(lastString);
    }
  }
  return undefined;
}

function parseJson(file: string, header: Uint8Array): Record<string, unknown> {
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(header);
  } catch (cause) {
    throw new SafetensorsError(file, `header is not UTF-8 (${String(cause)})`);
  }
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (cause) {
    throw new SafetensorsError(file, `header is not JSON (${String(cause)})`);
  }
  if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed) || !text.startsWith("{")) {
    throw new SafetensorsError(file, "header is not a JSON object");
  }
  const twice = repeatedKey(text);
  if (twice !== undefined) throw new SafetensorsError(file, `key ${shown(twice)} appears twice in the header`);
  return parsed as Record<string, unknown>;
}

function isSizes(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((size) => Number.isSafeInteger(size) && (size as number) >= 0);
}

/** The one key that is no tensor: text by name, as the format says. */
function checkMetadata(file: string, value: unknown): void {
  const sound =
    typeof value === "object" &&
    value !== null &&
    !Array.isArray(value) &&
    Object.values(value).every((text) => typeof text === "string");
  if (!sound) throw new SafetensorsError(file, `__metadata__ is ${shown(value)}, expected texts by name`);
}

function parseEntry(file: string, name: string, entry: unknown, dataStart: number): StoredTensor {
  const fail = (what: string): never => {
    throw new SafetensorsError(file, `tensor ${shown(name)}: ${what}`);
  };
  if (typeof entry !== "object" || entry === null) return fail("entry is not an object");
  const { dtype, shape, data_offsets: offsets } = entry as { dtype?: unknown; shape?: unknown; data_offsets?: unknown };
  const type =
    typeof dtype === "string" && dtype === dtype.toUpperCase() ? elementTypeNamed(dtype.toLowerCase()) : undefined;
  if (type === undefined) return fail(`unknown dtype ${shown(dtype)}`);
  if (!isSizes(shape)) return fail(`shape ${shown(shape)}, expected sizes of 0 or more`);
  if (!isSizes(offsets) || offsets.length !== 2) return fail(`data_offsets ${shown(offsets)}, expected [begin, end]`);
  const [begin, end] = offsets as [number, number];
  let need: number;
  try {
    need = elementCount(shape) * elementBytes(type);
  } catch (cause) {
    return fail((cause as Error).message.slice(0, 2 * SHOWN_CHARACTERS_MAX));
  }
  if (end - begin !== need)
    return fail(
      `data_offsets [${begin}, ${end}] span ${end - begin} bytes, expected ${need} for ${dtype as string} ${shown(shape)}`,
    );
  return { name, dtype: type, shape, offset: dataStart + begin, length: need };
}

/**
 * The tensors of a header, by name. `fileBytes` is the size of the whole file, which the tensors must cover exactly,
 * without a gap or an overlap. Throws SafetensorsError.
 */
export function parseSafetensorsHeader(
  file: string,
  header: Uint8Array,
  fileBytes: number,
): ReadonlyMap<string, StoredTensor> {
  const dataStart = SAFETENSORS_LENGTH_BYTES + header.byteLength;
  const tensors: StoredTensor[] = [];
  for (const [name, entry] of Object.entries(parseJson(file, header))) {
    if (name === "__metadata__") checkMetadata(file, entry);
    else tensors.push(parseEntry(file, name, entry, dataStart));
  }
  tensors.sort((a, b) => a.offset - b.offset || a.length - b.length);
  let expected = dataStart;
  for (const tensor of tensors) {
    if (tensor.offset !== expected) {
      const kind = tensor.offset < expected ? "overlaps the tensor before it" : "leaves a gap before it";
      throw new SafetensorsError(
        file,
        `tensor ${shown(tensor.name)} ${kind}: begins at byte ${tensor.offset}, expected ${expected}`,
      );
    }
    expected += tensor.length;
  }
  if (expected !== fileBytes) {
    throw new SafetensorsError(
      file,
      `tensors end at byte ${expected}, the file at ${fileBytes}${expected > fileBytes ? ": it is truncated" : ""}`,
    );
  }
  return new Map(tensors.map((tensor) => [tensor.name, tensor]));
}

/** The tensors of a whole file in memory. Throws SafetensorsError. */
export function parseSafetensors(file: string, bytes: Uint8Array): ReadonlyMap<string, StoredTensor> {
  const headerBytes = safetensorsHeaderBytes(file, bytes, bytes.byteLength);
  return parseSafetensorsHeader(
    file,
    bytes.subarray(SAFETENSORS_LENGTH_BYTES, SAFETENSORS_LENGTH_BYTES + headerBytes),
    bytes.byteLength,
  );
}
