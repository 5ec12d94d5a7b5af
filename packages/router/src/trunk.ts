// The dense part of the denoiser: its graphs in one thread. What a call needs again (residual, modulation, rotary tables)
// stays in the thread under the call's own names; only rows and the gate's choice come out, only expert sums go in.
import { OnnxThread } from "@moevie/runtime";
import type { TensorView } from "@moevie/runtime";
import type { Bundle } from "@moevie/bundle";
import type { DenoiserContext } from "./context-cache.ts";

export interface GatedRows {
  /** [tokens, d]. */
  readonly rows: Float32Array;
  /** [tokens, k]. */
  readonly ids: Int32Array;
  readonly weights: Float32Array;
}

const ENTRY_OUTPUTS = ["x", "t_mod", "temb", "rope_cos", "rope_sin"] as const;
const HELD = [...ENTRY_OUTPUTS, "ffn_gate", "ctx", "latent"] as const;

/** Loads the trunk's graphs. Throws BUNDLE_CORRUPT, UNSUPPORTED, DEVICE_MISSING or OUT_OF_MEMORY. */
export async function loadTrunk(bundle: Bundle, device: string, intraOpThreads: number): Promise<Trunk> {
  const thread = OnnxThread.start({ name: "trunk", device, intraOpThreads });
  const { layers } = bundle.manifest.denoiser;
  const blocks = Array.from({ length: layers }, (_, index) => `block.${index}`);
  for (const name of ["context", "entry", ...blocks, "head"]) await thread.load(name, await bundle.graph(name));
  return new Trunk(thread, layers);
}

export class Trunk {
  readonly layers: number;
  readonly #thread: OnnxThread;
  #nextCall = 1;

  constructor(thread: OnnxThread, layers: number) {
    this.#thread = thread;
    this.layers = layers;
  }

  /** rows [tokens, width] of a text -> what the blocks attend to. */
  async context(rows: Float32Array, tokens: number, width: number): Promise<DenoiserContext> {
    const outputs = await this.#thread.run("context", { rows: f32([1, tokens, width], rows) });
    return { ctx: outputs["ctx"]?.data as Float32Array, tokens, pooled: outputs["pooled"]?.data as Float32Array };
  }

  begin(): TrunkCall {
    return new TrunkCall(this.#thread, String(this.#nextCall++));
  }

  close(): Promise<void> {
    return this.#thread.close();
  }
}

/** One evaluation of the denoiser. Call entry, then block 0 to the last, then head; then `end`, whatever happened. */
export class TrunkCall {
  readonly #thread: OnnxThread;
  readonly #prefix: string;
  /** Time spent in graphs. */
  trunkUs = 0;

  constructor(thread: OnnxThread, id: string) {
    this.#thread = thread;
    this.#prefix = `${id}.`;
  }

  /** latent [1, channels, frames, height, width]. */
  async entry(latent: TensorView, timestep: number, context: DenoiserContext): Promise<void> {
    const { pooled } = context;
    const feeds = { latent, timestep: f32([1], Float32Array.of(timestep)), pooled: f32([1, pooled.length], pooled) };
    const keep = Object.fromEntries(ENTRY_OUTPUTS.map((name) => [name, this.#prefix + name]));
    await this.#run("entry", feeds, { keep });
  }

  /** Block `index` up to its gate. `moe` [tokens, d] is what the block before got from its experts. */
  async block(index: number, context: DenoiserContext, moe: Float32Array | undefined, d: number): Promise<GatedRows> {
    const feeds: Record<string, TensorView> = { ctx: f32([1, context.tokens, d], context.ctx) };
    const feed = this.#named({ x: "x", t_mod: "t_mod", rope_cos: "rope_cos", rope_sin: "rope_sin" });
    if (moe !== undefined) {
      feeds["moe"] = f32([moe.length / d, d], moe);
      feed["ffn_gate_in"] = `${this.#prefix}ffn_gate`;
    }
    const outputs = await this.#run(`block.${index}`, feeds, {
      feed,
      keep: this.#named({ x_out: "x", ffn_gate: "ffn_gate" }),
    });
    return {
      rows: outputs["rows"]?.data as Float32Array,
      ids: outputs["expert_ids"]?.data as Int32Array,
      weights: outputs["expert_weights"]?.data as Float32Array,
    };
  }

  /** The velocity, in the shape of `latent`. */
  async head(latent: TensorView, moe: Float32Array, d: number): Promise<Float32Array> {
    const feed = this.#named({ x: "x", temb: "temb", ffn_gate_in: "ffn_gate" });
    const outputs = await this.#run("head", { latent, moe: f32([moe.length / d, d], moe) }, { feed });
    return outputs["velocity"]?.data as Float32Array;
  }

  end(): Promise<void> {
    return this.#thread.drop(HELD.map((name) => this.#prefix + name));
  }

  #named(names: Record<string, string>): Record<string, string> {
    return Object.fromEntries(Object.entries(names).map(([input, name]) => [input, this.#prefix + name]));
  }

  async #run(
    key: string,
    feeds: Record<string, TensorView>,
    held: { feed?: Record<string, string>; keep?: Record<string, string> },
  ): Promise<Record<string, TensorView>> {
    const { outputs, computeUs } = await this.#thread.timedRun(key, feeds, undefined, held);
    this.trunkUs += computeUs;
    return outputs;
  }
}

function f32(dims: number[], data: Float32Array): TensorView {
  return { type: "float32", dims, data };
}
