// The text-encoder graph behind one call: ids and mask of one text in, rows out. Texts run alone, so that a text's rows do not
// depend on its company.
import type { OnnxThread } from "@moevie/runtime";
import { MoevieError } from "@moevie/contracts";

const GRAPH = "text-encoder";

export class RowsGraph {
  readonly #thread: OnnxThread;
  readonly #width: number;

  private constructor(thread: OnnxThread, width: number) {
    this.#thread = thread;
    this.#width = width;
  }

  /** `model` is the bundle's graph "text-encoder"; `width` is that of a row. Throws what OnnxThread.load throws. */
  static async load(thread: OnnxThread, model: Uint8Array, width: number): Promise<RowsGraph> {
    await thread.load(GRAPH, model);
    return new RowsGraph(thread, width);
  }

  /**
   * ids [tokens], of which the first `used` are the text's -> rows [tokens, width], zero behind them. The rest is not computed: no row of
   * the text looks at it. Throws BUNDLE_CORRUPT for another shape.
   */
  async run(ids: BigInt64Array, used: number): Promise<Float32Array> {
    const dims = [1, used];
    const { rows } = await this.#thread.run(GRAPH, {
      ids: { type: "int64", dims, data: ids.slice(0, used) },
      mask: { type: "int64", dims, data: new BigInt64Array(used).fill(1n) },
    });
    if (!(rows?.data instanceof Float32Array) || rows.data.length !== used * this.#width) {
      throw new MoevieError(
        "BUNDLE_CORRUPT",
        `The text-encoder graph gave rows [${rows?.dims.join(", ") ?? ""}], expected [1, ${used}, ${this.#width}].`,
      );
    }
    const padded = new Float32Array(ids.length * this.#width);
    padded.set(rows.data);
    return padded;
  }
}
