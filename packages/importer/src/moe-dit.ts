// The Wan-style diffusion transformer with token experts, cut into graphs: context, entry, one per block up to and including its
// gate, head; and the same pieces joined as one monolith with the experts inside. Both are made of the functions below, so they
// cannot drift apart. Norms, modulation and gate in f32. Sources: diffusers' WanTransformer3DModel; the model card of the starter.
import type { ConfigFile } from "./config-file.ts";
import { addMoeLayer, stackedReluExperts } from "./experts.ts";
import { addGate, type GateOptions, type GateResult } from "./gate.ts";
import { GraphBuilder, type Name } from "./graph-builder.ts";
import { addPositions, addRotary, addTimeFeatures, addTokenGrid, type TokenGrid } from "./positions.ts";
import type { WeightFile } from "./weight-file.ts";

export type DitSizes = {
  readonly channels: number;
  /** Pixels of the latent a token spans, [height, width]. */
  readonly patch: readonly [number, number];
  readonly layers: number;
  readonly heads: number;
  readonly headWidth: number;
  readonly width: number;
  readonly textWidth: number;
  readonly timeFeatures: number;
  readonly epsilon: number;
  readonly expertHidden: number;
  readonly ropeTheta: number;
  readonly positionFeatures: number;
  readonly trainGrid: readonly number[];
  readonly gate: GateOptions;
};

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
  readonly #weights: WeightFile;
  readonly #experts: WeightFile;
  readonly #prefix: string;

  /** The trunk in `weights` with the experts in `experts`; names of its graphs begin with `prefix`. */
  constructor(weights: WeightFile, experts: WeightFile, sizes: DitSizes, prefix: string) {
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

  /** rows [B, L, textWidth] -> ctx [B, L, d], pooled [B, d]. */
  #context(g: GraphBuilder, rows: Name): { ctx: Name; pooled: Name } {
    const at = "condition_embedder";
    const hidden = g.geluTanh(g.linear(this.#weights, `${at}.text_embedder.linear_1`, rows, true));
    const ctx = g.linear(this.#weights, `${at}.text_embedder.linear_2`, hidden, true);
    const largest = g.op("ReduceMax", [g.op("Abs", [rows]), g.i64s([2])], { keepdims: { int: 0 } });
    const used = g.op("Cast", [g.op("Greater", [largest, g.f32(0)])], { to: { int: 1 } });
    const count = g.op("Max", [g.op("ReduceSum", [used, g.i64s([1])], { keepdims: { int: 1 } }), g.f32(1)]);
    const mean = g.op("Div", [g.op("ReduceSum", [rows, g.i64s([1])], { keepdims: { int: 0 } }), count]);
    const square = g.op("ReduceMean", [g.mul(mean, mean), g.i64s([-1])], { keepdims: { int: 1 } });
    const unit = g.op("Div", [mean, g.op("Max", [g.op("Sqrt", [square]), g.f32(1e-6)])]);
    return { ctx, pooled: g.gemm(this.#weights, `${at}.pooled_embedder`, unit, true) };
  }

  #entry(
    g: GraphBuilder,
    latent: Name,
    timestep: Name,
    pooled: Name,
    origin: Name,
  ): { x: Name; tMod: Name; temb: Name; cos: Name; sin: Name } {
    const { width, patch } = this.sizes;
    const weights = this.#weights;
    const patches = g.op(
      "Conv",
      [latent, g.weight(weights, "patch_embedding.weight"), g.weight(weights, "patch_embedding.bias")],
      {
        kernel_shape: { ints: [1, ...patch] },
        strides: { ints: [1, ...patch] },
      },
    );
    const grid = addTokenGrid(g, patches, origin);
    const tokens = g.transpose(g.reshape(patches, [0, width, -1]), [0, 2, 1]);
    const positions = addPositions(g, grid, this.sizes.trainGrid, this.sizes.positionFeatures);
    const x = g.add(tokens, g.gemm(weights, "pos_embedding", positions, true));
    const time = "condition_embedder.time_embedder";
    const features = addTimeFeatures(g, timestep, this.sizes.timeFeatures);
    const embedded = g.gemm(
      weights,
      `${time}.linear_2`,
      g.silu(g.gemm(weights, `${time}.linear_1`, features, true)),
      true,
    );
    const temb = g.add(embedded, pooled);
    const tMod = g.reshape(g.gemm(weights, "condition_embedder.time_proj", g.silu(temb), true), [-1, 6, width]);
    return { x, tMod, temb, ...this.#rope(g, grid) };
  }

  #rope(g: GraphBuilder, grid: TokenGrid): { cos: Name; sin: Name } {
    return addRotary(g, grid, this.sizes.headWidth, this.sizes.ropeTheta);
  }

  /** Attention prefix `at`: queries from `from`, keys and values from `to`, turned by the rotary table when given. */
  #attention(g: GraphBuilder, at: string, from: Name, to: Name, rope?: { cos: Name; sin: Name }): Name {
    const heads = { num_heads: { int: this.sizes.heads } };
    const project = (name: string, value: Name): Name => g.linear(this.#weights, `${at}.${name}`, value, true);
    const normed = (name: string, norm: string, value: Name): Name => {
      const turned = g.rmsNorm(
        project(name, value),
        g.weight(this.#weights, `${at}.${norm}.weight`),
        this.sizes.epsilon,
      );
      if (rope === undefined) return turned;
      return g.fused("RotaryEmbedding", [turned, g.i64s([0]), rope.cos, rope.sin], {
        ...heads,
        interleaved: { int: 1 },
      });
    };
    const mixed = g.fused(
      "MultiHeadAttention",
      [normed("to_q", "norm_q", from), normed("to_k", "norm_k", to), project("to_v", to)],
      heads,
    );
    return project("to_out.0", mixed);
  }

  /** Block `index` on `x` [B, N, d], up to and including its gate. */
  #block(
    g: GraphBuilder,
    index: number,
    x: Name,
    tMod: Name,
    ctx: Name,
    rope: { cos: Name; sin: Name },
  ): { x: Name; ffnGate: Name; rows: Name; gate: GateResult } {
    const { width, epsilon } = this.sizes;
    const at = `blocks.${index}`;
    const weights = this.#weights;
    const table = g.add(g.weight(weights, `${at}.scale_shift_table`), tMod);
    const [shiftSa, scaleSa, gateSa, shiftFf, scaleFf, gateFf] = g.split(table, 1, [1, 1, 1, 1, 1, 1]) as [
      Name,
      Name,
      Name,
      Name,
      Name,
      Name,
    ];
    const h = g.modulate(g.layerNorm(x, width, epsilon), scaleSa, shiftSa);
    const afterSelf = g.add(x, g.mul(gateSa, this.#attention(g, `${at}.attn1`, h, h, rope)));
    const crossed = g.layerNorm(
      afterSelf,
      width,
      epsilon,
      g.weight(weights, `${at}.norm2.weight`),
      g.weight(weights, `${at}.norm2.bias`),
    );
    const afterCross = g.add(afterSelf, this.#attention(g, `${at}.attn2`, crossed, ctx));
    const rows = g.reshape(g.modulate(g.layerNorm(afterCross, width, epsilon), scaleFf, shiftFf), [-1, width]);
    const logits = g.gemm(weights, `${at}.ffn.gate`, rows, false);
    return { x: afterCross, ffnGate: gateFf, rows, gate: addGate(g, logits, this.sizes.gate) };
  }

  /** x + ffnGate * moe, the residual of a block's experts. */
  #afterExperts(g: GraphBuilder, x: Name, ffnGate: Name, moe: Name): Name {
    return g.add(x, g.mul(ffnGate, g.op("Reshape", [moe, g.op("Shape", [x])])));
  }

  #head(g: GraphBuilder, x: Name, temb: Name, latent: Name): Name {
    const { width, epsilon, channels, patch } = this.sizes;
    const table = g.add(g.weight(this.#weights, "scale_shift_table"), g.op("Unsqueeze", [temb, g.i64s([1])]));
    const [shift, scale] = g.split(table, 1, [1, 1]) as [Name, Name];
    const out = g.linear(this.#weights, "proj_out", g.modulate(g.layerNorm(x, width, epsilon), scale, shift), true);
    const shape = g.op("Shape", [latent]);
    const [batch, , frames, height, columns] = g.split(shape, 0, [1, 1, 1, 1, 1]) as [Name, Name, Name, Name, Name];
    const down = (size: Name, by: number): Name => g.op("Div", [size, g.i64s([by])]);
    const cells = g.concat(
      [batch, frames, down(height, patch[0]), down(columns, patch[1]), g.i64s([patch[0], patch[1], channels])],
      0,
    );
    const cellular = g.transpose(g.op("Reshape", [out, cells]), [0, 6, 1, 2, 4, 3, 5]);
    return g.op("Reshape", [cellular, shape]);
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
      this.#head(g, this.#afterExperts(g, x, ffnGate, moe), temb, latent),
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
    g.output("velocity", this.#head(g, x, temb, latent), "f32", this.#latentShape());
    return g;
  }
}
