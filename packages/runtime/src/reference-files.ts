// Tensors that people hold against another implementation: safetensors files in one folder that the operator has named. A file appears under
// its name whole or not at all.
import { randomUUID } from "node:crypto";
import { open, readFile, rename, rm, stat, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { MoevieError, limit } from "@moevie/contracts";
import { parseSafetensors, safetensorsHead, SafetensorsError, type NewTensor } from "@moevie/tensor";

/** Room for a header beside the largest latent. */
const HEADER_BYTES_MAX = 1 << 20;

/** `name` in the reference folder. Throws UNSUPPORTED where the operator named none. */
function referenceFile(folder: string, name: string): string {
  if (folder !== "") return join(folder, name);
  throw new MoevieError("UNSUPPORTED", `MOEVIE_REFERENCE_DIR is not set here; a request names ${name} in it.`);
}

/**
 * The one tensor of the file `name`, f32 of this shape. Throws INVALID_FIELD, blaming `field`, for a file that is missing, too large or not
 * well formed and for another tensor.
 */
export async function readReferenceTensor(
  folder: string,
  name: string,
  field: string,
  shape: readonly number[],
): Promise<Float32Array> {
  const file = referenceFile(folder, name);
  const refuse = (what: string): never => {
    const description = `${name} ${what}`;
    throw new MoevieError("INVALID_FIELD", `${field}: ${description}`, { violations: [{ field, description }] });
  };
  const size = await stat(file).then(
    ({ size: bytes }) => bytes,
    () => refuse("is missing from the reference folder"),
  );
  const most = limit("latentBytesMax") + HEADER_BYTES_MAX;
  if (size > most) refuse(`is ${size} bytes long; allowed: up to ${most}`);
  const bytes = new Uint8Array(await readFile(file));
  try {
    const [tensor, ...others] = parseSafetensors(name, bytes).values();
    const found = tensor && `${tensor.dtype} [${tensor.shape.join(", ")}]`;
    if (tensor?.dtype !== "f32" || others.length > 0 || tensor.shape.join() !== shape.join())
      return refuse(
        `holds ${others.length + (tensor ? 1 : 0)} tensors, first ${found ?? "none"}; allowed: one, f32 [${shape.join(", ")}]`,
      );
    return new Float32Array(bytes.slice(tensor.offset, tensor.offset + tensor.length).buffer);
  } catch (thrown) {
    if (thrown instanceof SafetensorsError) return refuse(thrown.message.replace(`${name}: `, ""));
    throw thrown;
  }
}

/** Writes tensors that become known one after the other. */
export class ReferenceWriter {
  readonly #file: string;
  readonly #part: string;
  readonly #handle: FileHandle;

  private constructor(file: string, part: string, handle: FileHandle) {
    this.#file = file;
    this.#part = part;
    this.#handle = handle;
  }

  /** Begins the file `name`, which will hold f32 `tensors` in this order. Throws UNSUPPORTED, DISK_FULL. */
  static async create(
    folder: string,
    name: string,
    tensors: readonly Omit<NewTensor, "dtype">[],
  ): Promise<ReferenceWriter> {
    const file = referenceFile(folder, name);
    const part = join(folder, `.${randomUUID()}.part`);
    const handle = await open(part, "wx");
    const writer = new ReferenceWriter(file, part, handle);
    await writer.#write(safetensorsHead(tensors.map((tensor) => ({ ...tensor, dtype: "f32" as const }))));
    return writer;
  }

  /** Adds values: the next tensor's, or the next of one. Throws DISK_FULL. */
  append(values: Float32Array): Promise<void> {
    return this.#write(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
  }

  /** A file that cannot be written any further is discarded. */
  async #write(bytes: Uint8Array): Promise<void> {
    try {
      // By hand: one write may take less than it is given.
      for (let at = 0; at < bytes.length;) at += (await this.#handle.write(bytes, at)).bytesWritten;
    } catch (cause) {
      await this.discard();
      if ((cause as NodeJS.ErrnoException).code !== "ENOSPC") throw cause;
      throw new MoevieError("DISK_FULL", "The reference folder's disk is full.", { cause });
    }
  }

  /** Puts the file under its name. */
  async finish(): Promise<void> {
    await this.#handle.close();
    await rename(this.#part, this.#file);
  }

  async discard(): Promise<void> {
    await this.#handle.close().catch(() => undefined);
    await rm(this.#part, { force: true });
  }
}
