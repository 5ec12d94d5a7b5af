// The Wan-style diffusion transformer with token experts, cut into graphs: context, entry, one per block up to and including its
// gate, head; and the same pieces joined as one monolith with the experts inside. Both are made of the functions below, so they
// cannot drift apart. Norms, modulation and gate in f32. Sources: diffusers' WanTransformer3DModel; the model card of the starter.
import type { ConfigFile } from "./config-file.ts";
import { DitParts, type Arithmetic, type DitPartSizes, type Rotary } from "./dit-parts.ts";
import { addMoeLayer, stackedReluExperts } from "./experts.ts";
import { addGate, type GateOptions, type GateResult } from "./gate.ts";
import { GraphBuilder, type Name } from "./graph-builder.ts";
import { addPositions, addRotary, addTokenGrid } from "./positions.ts";
import type { Weights } from "./weights.ts";

export type DitSizes = DitPartSizes & {
  readonly layers: number;
  readonly textWidth: number;
  readonly expertHidden: number;
  readonly ropeTheta: number;
  readonly positionFeatures: number;
  readonly trainGrid: readonly number[];
  readonly gate: GateOptions;
};

const ARITHMETIC: Arithmetic = { type: "f32", operators: "fused" };

/** Options of the gate; those this version of the architecture has not are refused, never passed over. */
function gateOptions(config: ConfigFile): GateOptions {
  const gate = config.object("gate");
  const optional = ["groups", "groups_kept", "scale", "selection_bias", "shared_experts"];
  gate.expectOnly(["scores", "renormalise", ...optional]);
  gate.expectValue("selection_bias", false);
  gate.expectValue("shared_experts", 0);
  const options = {
    experts: config.count("num_experts"),
    topK: config.count("num_experts_per_tok"),
    scores: gate.oneOf("scores", ["softmax", "sigmoid"]),
    renormalise: gate.flag("renormalise"),
    groups: gate.has("groups") ? gate.count("groups") : 1,
    groupsKept: gate.has("groups_kept") ? gate.count("groups_kept") : 1,
    scale: gate.has("scale") ? gate.number("scale") : 1,
  };
  const { experts, topK, groups, groupsKept } = options;
  gate.expect("groups", experts % groups === 0, `a divisor of the ${experts} experts`);
  gate.expect("groups_kept", groupsKept <= groups, `at most the ${groups} groups`);
  const choice = (experts / groups) * groupsKept;
  config.expect("num_experts_per_tok", topK <= choice, `at most the ${choice} experts to choose from`);
  return options;
}

export function ditSizes(config: ConfigFile): DitSizes {
  const [frames, height, width] = config.numbers("patch_size", 3) as [number, number, number];
  const isPatch = frames === 1 && [height, width].every((size) => Number.isSafeInteger(size) && size >= 1);
  config.expect("patch_size", isPatch, "1 frame and whole sides");
  const heads = config.count("num_attention_heads");
  const headWidth = config.count("attention_head_dim");
  config.expect("attention_head_dim", headWidth % 2 === 0, "an even number: rotary embedding turns pairs");
  const timeFeatures = config.count("freq_dim");
  config.expect("freq_dim", timeFeatures % 2 === 0, "an even number: cosines and sines");
  const positionFeatures = config.count("pos_dim");
  config.expect("pos_dim", positionFeatures % 6 === 0 && positionFeatures > 6, "a multiple of 6 beyond 6");
  return {
    channels: config.count("in_channels"),
    patch: [height, width],
    layers: config.count("num_layers"),
    heads,
    headWidth,
    width: heads * headWidth,
    textWidth: config.count("text_dim"),
    timeFeatures,
    epsilon: config.number("eps"),
    expertHidden: config.count("expert_hidden"),
    ropeTheta: config.number("rope_theta"),
    positionFeatures,
    trainGrid: config.numbers("train_grid", 3),
    gate: gateOptions(config),
  };
}

export class MoeDit {
  readonly sizes: DitSizes;
  /** The trunk's. */
  readonly #weights: Weights;
  readonly #experts: Weights;
  readonly #prefix: string;

  /** The trunk in `weights` with the experts in `experts`; names of its graphs begin with `prefix`. */
  constructor(weights: Weights, experts: Weights, sizes: DitSizes, prefix: string) {
    this.#weights = weights;
    this.#experts = experts;
    this.sizes = sizes;
    this.#prefix = prefix;
  }

  #graph(name: string): GraphBuilder {
    return new GraphBuilder(this.#prefix + name);
  }

  /** Every graph that the router runs, and the monolith. */
  graphs(): GraphBuilder[] {
    const blocks = Array.from({ length: this.sizes.layers }, (_, index) => this.#blockGraph(index));
    return [this.#contextGraph(), this.#entryGraph(), ...blocks, this.#headGraph(), this.#monolithGraph()];
  }

  #parts(g: GraphBuilder): DitParts {
    return new DitParts(g, this.#weights, this.sizes, ARITHMETIC);
  }

  /** rows [B, L, textWidth] -> ctx [B, L, d], pooled [B, d]. */
  #context(g: GraphBuilder, rows: Name): { ctx: Name; pooled: Name } {
    const { textWidth, width } = this.sizes;
    const largest = g.op("ReduceMax", [g.op("Abs", [rows]), g.i64s([2])], { keepdims: { int: 0 } });
    const used = g.cast(g.op("Greater", [largest, g.f32(0)]), "f32");
    const count = g.op("Max", [g.op("ReduceSum", [used, g.i64s([1])], { keepdims: { int: 1 } }), g.f32(1)]);
    const mean = g.op("Div", [g.op("ReduceSum", [rows, g.i64s([1])], { keepdims: { int: 0 } }), count]);
    const square = g.op("ReduceMean", [g.mul(mean, mean), g.i64s([-1])], { keepdims: { int: 1 } });
    const unit = g.op("Div", [mean, g.op("Max", [g.op("Sqrt", [square]), g.f32(1e-6)])]);
    const parts = this.#parts(g);
    return {
      ctx: parts.text(rows, textWidth),
      pooled: parts.rows("condition_embedder.pooled_embedder", unit, textWidth, width),
    };
  }

  #entry(
    g: GraphBuilder,
    latent: Name,
    timestep: Name,
    pooled: Name,
    origin: Name,
  ): { x: Name; tMod: Name; temb: Name; cos: Name; sin: Name } {
    const { width, headWidth, ropeTheta, positionFeatures, trainGrid } = this.sizes;
    const parts = this.#parts(g);
    const patches = parts.patches(latent);
    const grid = addTokenGrid(g, patches, origin);
    const positions = addPositions(g, grid, trainGrid, positionFeatures);
    const x = g.add(parts.tokens(patches), parts.rows("pos_embedding", positions, positionFeatures, width));
    const temb = g.add(parts.time(timestep).embedded, pooled);
    return { x, tMod: parts.timeModulation(temb), temb, ...addRotary(g, grid, headWidth, ropeTheta) };
  }

  /** Block `index` on `x` [B, N, d], up to and including its gate. */
  #block(
    g: GraphBuilder,
    index: number,
    x: Name,
    tMod: Name,
    ctx: Name,
    rope: Rotary,
  ): { x: Name; ffnGate: Name; rows: Name; gate: GateResult } {
    const at = `blocks.${index}`;
    const parts = this.#parts(g);
    const mod = parts.modulations(at, tMod);
    const h = g.modulate(parts.layerNorm(x), mod.scaleSa, mod.shiftSa);
    const afterSelf = g.add(x, g.mul(mod.gateSa, parts.attention(`${at}.attn1`, h, h, rope)));
    const crossed = parts.affineNorm(`${at}.norm2`, afterSelf);
    const afterCross = g.add(afterSelf, parts.attention(`${at}.attn2`, crossed, ctx));
    const modulated = g.modulate(parts.layerNorm(afterCross), mod.scaleFf, mod.shiftFf);
    const rows = g.reshape(modulated, [-1, this.sizes.width]);
    const logits = g.gemm(this.#weights, `${at}.ffn.gate`, rows, false);
    return { x: afterCross, ffnGate: mod.gateFf, rows, gate: addGate(g, logits, this.sizes.gate) };
  }

  /** x + ffnGate * moe, the residual of a block's experts. */
  #afterExperts(g: GraphBuilder, x: Name, ffnGate: Name, moe: Name): Name {
    return g.add(x, g.mul(ffnGate, g.op("Reshape", [moe, g.op("Shape", [x])])));
  }

  #latentShape(): (number | string)[] {
    return ["batch", this.sizes.channels, "frames", "height", "width"];
  }

  #contextGraph(): GraphBuilder {
    const g = this.#graph("context");
    const { ctx, pooled } = this.#context(g, g.input("rows", "f32", ["batch", "text", this.sizes.textWidth]));
    g.output("ctx", ctx, "f32", ["batch", "text", this.sizes.width]);
    g.output("pooled", pooled, "f32", ["batch", this.sizes.width]);
    return g;
  }

  #entryGraph(): GraphBuilder {
    const g = this.#graph("entry");
    const { width, headWidth } = this.sizes;
    const latent = g.input("latent", "f32", this.#latentShape());
    const entry = this.#entry(
      g,
      latent,
      g.input("timestep", "f32", ["batch"]),
      g.input("pooled", "f32", ["batch", width]),
      g.input("origin", "f32", [1]),
    );
    g.output("x", entry.x, "f32", ["batch", "tokens", width]);
    g.output("t_mod", entry.tMod, "f32", ["batch", 6, width]);
    g.output("temb", entry.temb, "f32", ["batch", width]);
    g.output("rope_cos", entry.cos, "f32", ["tokens", headWidth / 2]);
    g.output("rope_sin", entry.sin, "f32", ["tokens", headWidth / 2]);
    return g;
  }

  #blockGraph(index: number): GraphBuilder {
    const g = this.#graph(`block.${index}`);
    const { width, headWidth } = this.sizes;
    let x = g.input("x", "f32", ["batch", "tokens", width]);
    const tMod = g.input("t_mod", "f32", ["batch", 6, width]);
    const ctx = g.input("ctx", "f32", ["batch", "text", width]);
    const rope = {
      cos: g.input("rope_cos", "f32", ["tokens", headWidth / 2]),
      sin: g.input("rope_sin", "f32", ["tokens", headWidth / 2]),
    };
    if (index > 0)
      x = this.#afterExperts(
        g,
        x,
        g.input("ffn_gate_in", "f32", ["batch", 1, width]),
        g.input("moe", "f32", ["rows", width]),
      );
    const block = this.#block(g, index, x, tMod, ctx, rope);
    g.output("x_out", block.x, "f32", ["batch", "tokens", width]);
    g.output("ffn_gate", block.ffnGate, "f32", ["batch", 1, width]);
    g.output("rows", block.rows, "f32", ["rows", width]);
    this.#outputGate(g, block.gate, "expert_ids", "expert_weights");
    return g;
  }

  #outputGate(g: GraphBuilder, gate: GateResult, ids: string, weights: string): void {
    g.output(ids, g.op("Cast", [gate.ids], { to: { int: 6 } }), "i32", ["rows", this.sizes.gate.topK]);
    g.output(weights, gate.weights, "f32", ["rows", this.sizes.gate.topK]);
  }

  #headGraph(): GraphBuilder {
    const g = this.#graph("head");
    const { width } = this.sizes;
    const x = g.input("x", "f32", ["batch", "tokens", width]);
    const ffnGate = g.input("ffn_gate_in", "f32", ["batch", 1, width]);
    const moe = g.input("moe", "f32", ["rows", width]);
    const temb = g.input("temb", "f32", ["batch", width]);
    const latent = g.input("latent", "f32", this.#latentShape());
    g.output(
      "velocity",
      this.#parts(g).head(this.#afterExperts(g, x, ffnGate, moe), temb, latent).velocity,
      "f32",
      this.#latentShape(),
    );
    return g;
  }

  /** latent, timestep, origin, rows -> velocity, and each block's choices as ids.<block>, weights.<block>: the whole model in one graph. */
  #monolithGraph(): GraphBuilder {
    const g = this.#graph("monolith");
    const { width, gate } = this.sizes;
    const latent = g.input("latent", "f32", this.#latentShape());
    const timestep = g.input("timestep", "f32", ["batch"]);
    const origin = g.input("origin", "f32", [1]);
    const { ctx, pooled } = this.#context(g, g.input("rows", "f32", ["batch", "text", this.sizes.textWidth]));
    const { x: start, tMod, temb, cos, sin } = this.#entry(g, latent, timestep, pooled, origin);
    let x = start;
    for (let index = 0; index < this.sizes.layers; index++) {
      const block = this.#block(g, index, x, tMod, ctx, { cos, sin });
      const expert = stackedReluExperts(g, this.#experts, `blocks.${index}.ffn.experts`);
      const moe = addMoeLayer(g, block.rows, block.gate, { experts: gate.experts, topK: gate.topK, width }, expert);
      x = this.#afterExperts(g, block.x, block.ffnGate, moe);
      this.#outputGate(g, block.gate, `ids.${index}`, `weights.${index}`);
    }
    g.output("velocity", this.#parts(g).head(x, temb, latent).velocity, "f32", this.#latentShape());
    return g;
  }
}
