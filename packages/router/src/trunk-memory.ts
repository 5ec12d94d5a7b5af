// The memory of one batch of evaluations of the denoiser, often a batch of one, and the plans that run on it, made at its first use and used
// again by later batches of the same shape. Blocks take turns between two sets of outputs, so that its size does not grow with the layers.
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

/** An item's part of the memory. */
interface Item {
  readonly inputs: Readonly<Record<"latent" | "timestep" | "pooled", TensorView>>;
  context: DenoiserContext | undefined;
}

export class TrunkMemory {
  readonly key: string;
  readonly #thread: OnnxThread;
  readonly #graphs: string;
  readonly #items: readonly Item[];
  /** Of all items, one behind the other. */
  readonly #latent: TensorView;
  readonly #pooled: TensorView;
  readonly #ctx: TensorView;
  readonly #origin = sharedF32([1]);
  readonly #blocks: (GraphPlan | undefined)[];
  /** The first item's entry, which shows what entries make. */
  #first: GraphPlan | undefined;
  #entries: readonly GraphPlan[] | undefined;
  /** What the entries of all items make, one behind the other; rotary tables are the same for all. */
  #entered: TensorViews | undefined;
  #head: GraphPlan | undefined;
  #moe: TensorView | undefined;

  /** For batches of as many evaluations as `inputs`, all of the same variant, shape and text length. */
  constructor(thread: OnnxThread, layers: number, inputs: readonly [TrunkInput, ...TrunkInput[]]) {
    const [{ graphs, shape, context }] = inputs;
    const count = inputs.length;
    this.key = TrunkMemory.key(inputs);
    this.#thread = thread;
    this.#graphs = graphs;
    this.#latent = sharedF32([count, ...shape]);
    this.#ctx = sharedF32([count, context.tokens, context.ctx.length / context.tokens]);
    this.#pooled = sharedF32([count, context.pooled.length]);
    this.#items = inputs.map((_, at) => ({
      inputs: {
        latent: itemOf(this.#latent, at),
        timestep: sharedF32([1]),
        pooled: itemOf(this.#pooled, at),
      },
      context: undefined,
    }));
    this.#blocks = Array.from({ length: layers }, () => undefined);
  }

  /** Batches with the same key can use the same memory. */
  static key(inputs: readonly [TrunkInput, ...TrunkInput[]]): string {
    const [{ graphs, shape, context }] = inputs;
    return `${graphs}/${shape.join("x")}/${context.tokens}/${inputs.length}`;
  }

  /** Bytes held, as far as they are known. */
  get bytes(): number {
    const made = [this.#first, ...this.#blocks.slice(0, 2), this.#head].flatMap((plan) =>
      plan?.known === true ? Object.values(plan.outputs) : [],
    );
    const entered = this.#items.length === 1 ? [] : Object.values(this.#entered ?? {});
    const own = [this.#latent, this.#ctx, this.#pooled, ...(this.#moe === undefined ? [] : [this.#moe])];
    return [...own, ...entered, ...made].reduce((sum, { data }) => sum + data.byteLength, 0);
  }

  /** As many as the memory is for, all with the same origin. */
  fill(inputs: readonly TrunkInput[]): void {
    inputs.forEach(({ latent, timestep, origin, context }, at) => {
      const item = this.#items[at] as Item;
      (item.inputs.latent.data as Float32Array).set(latent);
      item.inputs.timestep.data[0] = timestep;
      this.#origin.data[0] = origin;
      if (item.context === context) return;
      (itemOf(this.#ctx, at).data as Float32Array).set(context.ctx);
      (item.inputs.pooled.data as Float32Array).set(context.pooled);
      item.context = context;
    });
  }

  /** The entry graph's plan for one item, to be run before `entries` where `entriesKnown` is false. */
  firstEntry(): GraphPlan {
    return (this.#first ??= this.#thread.plan(`${this.#graphs}entry`, this.#entryInputs(this.#items[0] as Item)));
  }

  get entriesKnown(): boolean {
    return this.firstEntry().known;
  }

  /** A plan an item: the entry has products of a single row, whose bits would depend on how many rows share them. */
  entries(): readonly GraphPlan[] {
    if (this.#entries !== undefined) return this.#entries;
    const made = this.firstEntry().outputs;
    if (this.#items.length === 1) {
      this.#entered = made;
      return (this.#entries = [this.firstEntry()]);
    }
    const all: Record<string, TensorView> = {};
    for (const [name, { dims }] of Object.entries(made))
      all[name] = sharedF32(isShared(name) ? dims : [this.#items.length, ...dims.slice(1)]);
    this.#entered = all;
    this.#entries = this.#items.map((item, at) => {
      const outputs = Object.entries(all).map(([name, view]) => [name, isShared(name) ? view : itemOf(view, at)]);
      const views = Object.fromEntries(outputs) as TensorViews;
      return this.#thread.plan(`${this.#graphs}entry`, this.#entryInputs(item), views);
    });
    return this.#entries;
  }

  #entryInputs({ inputs }: Item): TensorViews {
    return { ...inputs, origin: this.#origin };
  }

  block(index: number): GraphPlan {
    return (this.#blocks[index] ??= this.#planBlock(index));
  }

  /** [items · tokens, d]: the sums of the last block's experts, input of the next block and of the head. */
  get moe(): TensorView {
    return (this.#moe ??= sharedF32(output(this.block(0).outputs, "rows").dims));
  }

  head(): GraphPlan {
    const last = this.block(this.#blocks.length - 1);
    return (this.#head ??= this.#thread.plan(`${this.#graphs}head`, {
      x: output(last.outputs, "x_out"),
      ffn_gate_in: output(last.outputs, "ffn_gate"),
      moe: this.moe,
      temb: this.#entry("temb"),
      latent: this.#latent,
    }));
  }

  release(): void {
    for (const plan of new Set([this.#first, ...(this.#entries ?? []), ...this.#blocks, this.#head])) plan?.release();
  }

  #entry(name: string): TensorView {
    return output(this.#entered ?? {}, name);
  }

  #planBlock(index: number): GraphPlan {
    const inputs: Record<string, TensorView> = { ctx: this.#ctx };
    for (const name of ["t_mod", "rope_cos", "rope_sin"]) inputs[name] = this.#entry(name);
    if (index === 0) inputs["x"] = this.#entry("x");
    else {
      const before = this.block(index - 1).outputs;
      inputs["x"] = output(before, "x_out");
      inputs["ffn_gate_in"] = output(before, "ffn_gate");
      inputs["moe"] = this.moe;
    }
    const outputs: TensorViews | undefined = index < 2 ? undefined : this.block(index % 2).outputs;
    return this.#thread.plan(`${this.#graphs}block.${index}`, inputs, outputs);
  }
}

function output(outputs: TensorViews, name: string): TensorView {
  const view = outputs[name];
  if (view === undefined) throw new MoevieError("BUNDLE_CORRUPT", `A graph of the bundle has no output ${name}.`);
  return view;
}

/** Rotary tables are the same for every item. */
function isShared(name: string): boolean {
  return name.startsWith("rope_");
}

/** Item `at` of a batch [B, …], as a batch of one in the same memory. */
function itemOf({ type, dims, data }: TensorView, at: number): TensorView {
  const one = data.length / (dims[0] as number);
  return { type, dims: [1, ...dims.slice(1)], data: data.subarray(at * one, (at + 1) * one) };
}

function sharedF32(dims: readonly number[]): TensorView {
  const count = dims.reduce((product, size) => product * size, 1);
  return { type: "float32", dims, data: new Float32Array(new SharedArrayBuffer(count * 4)) };
}
