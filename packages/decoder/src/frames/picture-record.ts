// What a decode call keeps of its pictures when it is asked to: floats as decoded, before finishing, in a file of the reference folder.
import { ReferenceWriter } from "@moevie/runtime";
import type { ValidDecode } from "../decode-request.ts";
import type { OnPlanes } from "../vae/causal-decoder.ts";

export class PictureRecord {
  readonly #writer: ReferenceWriter | undefined;
  #finished = false;

  private constructor(writer: ReferenceWriter | undefined) {
    this.#writer = writer;
  }

  /** Does nothing for a call that does not ask. Throws UNSUPPORTED where there is no reference folder. */
  static async begin(
    { saveFrames, pictureCount, from }: Pick<ValidDecode, "saveFrames" | "pictureCount" | "from">,
    referenceDir: string,
  ): Promise<PictureRecord> {
    if (saveFrames === "") return new PictureRecord(undefined);
    const shape = [pictureCount, from.height, from.width, 3];
    return new PictureRecord(await ReferenceWriter.create(referenceDir, saveFrames, [{ name: "frames", shape }]));
  }

  /** Takes the next picture; undefined where none is kept. */
  get add(): OnPlanes | undefined {
    const writer = this.#writer;
    return writer && ((planes) => writer.append(interleaved(planes)));
  }

  async finish(): Promise<void> {
    await this.#writer?.finish();
    this.#finished = true;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#finished) await this.#writer?.discard();
  }
}

/** Planes [3, pixels] as [pixels, 3] in [0, 1], -1 to 1 before; what is outside is clamped. */
function interleaved(planes: Float32Array): Float32Array {
  const pixels = planes.length / 3;
  return planes.map((_, i) => {
    const value = planes[(i % 3) * pixels + Math.floor(i / 3)] ?? 0;
    return (Math.min(1, Math.max(-1, value)) + 1) / 2;
  });
}
