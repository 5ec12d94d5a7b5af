// A diffusers folder with the configurations, tensor names and shapes of the real Wan2.2-T2V-A14B, its weights holes in sparse files: 126 GB to
// whoever reads sizes, next to nothing on the disk.
import { closeSync, cpSync, ftruncateSync, mkdirSync, openSync, readFileSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";

const PARITY = join(import.meta.dirname, "../parity/wan");
/** As diffusers shards what it saves. */
const SHARD_BYTES_MAX = 5e9;
const BYTES: Readonly<Record<string, number>> = { F32: 4, BF16: 2 };

interface Piece {
  readonly config: unknown;
  readonly layers: number;
  readonly dtype: string;
  /** Shape by name; * stands for the number of each layer. */
  readonly tensors: Readonly<Record<string, readonly number[]>>;
}
type Placed = { readonly name: string; readonly shape: readonly number[]; readonly bytes: number };

function tensorsOf({ layers, dtype, tensors }: Piece): Placed[] {
  return Object.entries(tensors).flatMap(([pattern, shape]) => {
    const names = pattern.includes("*")
      ? Array.from({ length: layers }, (_, layer) => pattern.replace("*", String(layer)))
      : [pattern];
    return names.map((name) => ({
      name,
      shape,
      bytes: shape.reduce((product, size) => product * size, BYTES[dtype]!),
    }));
  });
}

/** Writes the header and leaves the rest a hole. */
function writeSparse(file: string, tensors: readonly Placed[], dtype: string): void {
  let at = 0;
  const header = Object.fromEntries(
    tensors.map(({ name, shape, bytes }) => [name, { dtype, shape, data_offsets: [at, (at += bytes)] }]),
  );
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  const handle = openSync(file, "w");
  try {
    writeSync(handle, Buffer.concat([length, text]));
    ftruncateSync(handle, 8 + text.length + at);
  } finally {
    closeSync(handle);
  }
}

function numbered(index: number): string {
  return String(index).padStart(5, "0");
}

function writePiece(folder: string, stem: string, piece: Piece): void {
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, "config.json"), JSON.stringify(piece.config));
  const shards: Placed[][] = [[]];
  let filled = 0;
  for (const tensor of tensorsOf(piece)) {
    if (filled + tensor.bytes > SHARD_BYTES_MAX) {
      shards.push([]);
      filled = 0;
    }
    shards.at(-1)!.push(tensor);
    filled += tensor.bytes;
  }
  if (shards.length === 1) return writeSparse(join(folder, `${stem}.safetensors`), shards[0]!, piece.dtype);
  const places: Record<string, string> = {};
  for (const [index, shard] of shards.entries()) {
    const name = `${stem}-${numbered(index + 1)}-of-${numbered(shards.length)}.safetensors`;
    writeSparse(join(folder, name), shard, piece.dtype);
    for (const tensor of shard) places[tensor.name] = name;
  }
  writeFileSync(join(folder, `${stem}.safetensors.index.json`), JSON.stringify({ weight_map: places }));
}

/** Writes the stand-in to `folder`. */
export function writeSparseWan(folder: string): void {
  const recorded = JSON.parse(readFileSync(join(PARITY, "a14b.json"), "utf8")) as Record<string, Piece>;
  const { transformer, text_encoder: text, vae } = recorded as Record<"transformer" | "text_encoder" | "vae", Piece>;
  mkdirSync(folder, { recursive: true });
  for (const same of ["model_index.json", "scheduler", "tokenizer"])
    cpSync(join(PARITY, "model", same), join(folder, same), { recursive: true });
  for (const expert of ["transformer", "transformer_2"])
    writePiece(join(folder, expert), "diffusion_pytorch_model", transformer);
  writePiece(join(folder, "text_encoder"), "model", text);
  writePiece(join(folder, "vae"), "diffusion_pytorch_model", vae);
}
