// The memory of one evaluation of the denoiser and the plans that run on it, made at its first use and used again by later
// evaluations of the same shape. Blocks take turns between two sets of outputs, so that its size does not grow with the layers.
import { MoevieError } from "@moevie/contracts";
import type { GraphPlan, OnnxThread, TensorView, TensorViews } from "@moevie/runtime";
import type { DenoiserContext } from "./context-cache.ts";

/** What an evaluation is given. */
export interface TrunkInput {
  /** What the names of the variant's graphs begin with. */
  readonly graphs: string;
  /** [channels, frames, height, width]. */
  readonly shape: readonly number[];
  readonly latent: Float32Array;
  readonly timestep: number;
  /** Latent frame of the model's time that the first one is. */
  readonly origin: number;
  readonly context: DenoiserContext;
}

export class TrunkMemory {
  readonly key: string;
  readonly #thread: OnnxThread;
  readonly #graphs: string;
  readonly #latent: TensorView;
  readonly #timestep = sharedF32([1]);
  readonly #origin = sharedF32([1]);
  readonly #ctx: TensorView;
  readonly #pooled: TensorView;
  readonly #blocks: (GraphPlan | undefined)[];
  #entry: GraphPlan | undefined;
  #head: GraphPlan | undefined;
  #moe: TensorView | undefined;
  #context: DenoiserContext | undefined;

  constructor(thread: OnnxThread, layers: number, input: TrunkInput) {
    const { graphs, shape, context } = input;
    this.key = TrunkMemory.key(input);
    this.#thread = thread;
    this.#graphs = graphs;
    this.#latent = sharedF32([1, ...shape]);
    this.#ctx = sharedF32([1, context.tokens, context.ctx.length / context.tokens]);
    this.#pooled = sharedF32([1, context.pooled.length]);
    this.#blocks = Array.from({ length: layers }, () => undefined);
  }

  /** Evaluations with the same key can use the same memory. */
  static key({ graphs, shape, context }: TrunkInput): string {
    return `${graphs}/${shape.join("x")}/${context.tokens}`;
  }

  /** Bytes held, as far as they are known. */
  get bytes(): number {
    const made = [this.#entry, ...this.#blocks.slice(0, 2), this.#head].flatMap((plan) =>
      plan?.known === true ? Object.values(plan.outputs) : [],
    );
    const own = [this.#latent, this.#ctx, this.#pooled, ...(this.#moe === undefined ? [] : [this.#moe])];
    return [...own, ...made].reduce((sum, { data }) => sum + data.byteLength, 0);
  }

  fill({ latent, timestep, origin, context }: TrunkInput): void {
    (this.#latent.data as Float32Array).set(latent);
    this.#timestep.data[0] = timestep;
    this.#origin.data[0] = origin;
    if (this.#context === context) return;
    (this.#ctx.data as Float32Array).set(context.ctx);
    (this.#pooled.data as Float32Array).set(context.pooled);
    this.#context = context;
  }

  entry(): GraphPlan {
    return (this.#entry ??= this.#thread.plan(`${this.#graphs}entry`, {
      latent: this.#latent,
      timestep: this.#timestep,
      pooled: this.#pooled,
      origin: this.#origin,
    }));
  }

  block(index: number): GraphPlan {
    return (this.#blocks[index] ??= this.#planBlock(index));
  }

  /** [tokens, d]: the sums of the last block's experts, input of the next block and of the head. */
  get moe(): TensorView {
    return (this.#moe ??= sharedF32(output(this.block(0), "rows").dims));
  }

  head(): GraphPlan {
    const last = this.block(this.#blocks.length - 1);
    return (this.#head ??= this.#thread.plan(`${this.#graphs}head`, {
      x: output(last, "x_out"),
      ffn_gate_in: output(last, "ffn_gate"),
      moe: this.moe,
      temb: output(this.entry(), "temb"),
      latent: this.#latent,
    }));
  }

  release(): void {
    for (const plan of [this.#entry, ...this.#blocks, this.#head]) plan?.release();
  }

  #planBlock(index: number): GraphPlan {
    const entry = this.entry();
    const inputs: Record<string, TensorView> = { ctx: this.#ctx };
    for (const name of ["t_mod", "rope_cos", "rope_sin"]) inputs[name] = output(entry, name);
    if (index === 0) inputs["x"] = output(entry, "x");
    else {
      const before = this.block(index - 1);
      inputs["x"] = output(before, "x_out");
      inputs["ffn_gate_in"] = output(before, "ffn_gate");
      inputs["moe"] = this.moe;
    }
    const outputs: TensorViews | undefined = index < 2 ? undefined : this.block(index % 2).outputs;
    return this.#thread.plan(`${this.#graphs}block.${index}`, inputs, outputs);
  }
}

function output(plan: GraphPlan, name: string): TensorView {
  const view = plan.outputs[name];
  if (view === undefined) throw new MoevieError("BUNDLE_CORRUPT", `A graph of the bundle has no output ${name}.`);
  return view;
}

function sharedF32(dims: readonly number[]): TensorView {
  const count = dims.reduce((product, size) => product * size, 1);
  return { type: "float32", dims, data: new Float32Array(new SharedArrayBuffer(count * 4)) };
}
