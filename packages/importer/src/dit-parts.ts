// What every diffusion transformer of Wan's kind is made of: patches in, time embedding, attention, modulation, patches out. The weights
// have the names diffusers' WanTransformer3DModel gives them. Residuals, norms, modulation and time embedding are f32 whatever the
// linear layers compute in.
import type { FloatType, GraphBuilder, Name } from "./graph-builder.ts";
import { addTimeFeatures } from "./positions.ts";
import type { Weights } from "./weights.ts";

/** Tables [tokens, headWidth / 2]. */
export type Rotary = { readonly cos: Name; readonly sin: Name };

export type DitPartSizes = {
  readonly channels: number;
  /** Rows and columns of the latent a token spans. */
  readonly patch: readonly [number, number];
  readonly heads: number;
  readonly headWidth: number;
  readonly width: number;
  readonly timeFeatures: number;
  readonly epsilon: number;
};

/** What linear layers and attention compute in; `plain` is without the runtime's own operators. */
export type Arithmetic = { readonly type: FloatType; readonly operators: "fused" | "plain" };

/** A block's six modulations [B, 1, width], in the order they are stored. */
export type Modulations = {
  readonly shiftSa: Name;
  readonly scaleSa: Name;
  readonly gateSa: Name;
  readonly shiftFf: Name;
  readonly scaleFf: Name;
  readonly gateFf: Name;
};

const TIME = "condition_embedder";

/** Adds parts to one graph. */
export class DitParts {
  readonly g: GraphBuilder;
  readonly #weights: Weights;
  readonly #sizes: DitPartSizes;
  readonly #arithmetic: Arithmetic;

  constructor(g: GraphBuilder, weights: Weights, sizes: DitPartSizes, arithmetic: Arithmetic) {
    this.g = g;
    this.#weights = weights;
    this.#sizes = sizes;
    this.#arithmetic = arithmetic;
  }

  /** A stored tensor of this shape, f32. */
  weight(name: string, shape: readonly number[]): Name {
    this.#weights.expectShape(name, shape);
    return this.g.weight(this.#weights, name);
  }

  /** Rows of `value` [..., from] through linear layer `name` -> [n, to], in `type`. */
  rows(name: string, value: Name, from: number, to: number, type: FloatType = this.#arithmetic.type): Name {
    const { g } = this;
    this.#weights.expectShape(`${name}.weight`, [to, from]);
    this.#weights.expectShape(`${name}.bias`, [to]);
    return g.gemm(this.#weights, name, g.reshape(value, [-1, from]), true, type);
  }

  /** The same, back in the shape of `like` [B, N, …] -> [B, N, to], f32. */
  linear(name: string, value: Name, like: Name, from: number, to: number): Name {
    return this.#from(this.g.back(this.rows(name, value, from, to), like, to));
  }

  #to(type: FloatType, value: Name): Name {
    return type === "f32" ? value : this.g.cast(value, type);
  }

  #from(value: Name): Name {
    return this.#arithmetic.type === "f32" ? value : this.g.cast(value, "f32");
  }

  /** latent [B, C, T, H, W] -> [B, width, T, H / rows, W / columns]. */
  patches(latent: Name): Name {
    const { width, channels, patch } = this.#sizes;
    const inputs = [
      latent,
      this.weight("patch_embedding.weight", [width, channels, 1, ...patch]),
      this.weight("patch_embedding.bias", [width]),
    ];
    const kernel = { ints: [1, ...patch] };
    return this.g.op("Conv", inputs, { kernel_shape: kernel, strides: kernel });
  }

  /** patches -> [B, tokens, width]. */
  tokens(patches: Name): Name {
    return this.g.transpose(this.g.reshape(patches, [0, this.#sizes.width, -1]), [0, 2, 1]);
  }

  /** timestep [B] -> features [B, timeFeatures] and their embedding [B, width]. */
  time(timestep: Name): { features: Name; embedded: Name } {
    const { width, timeFeatures } = this.#sizes;
    const features = addTimeFeatures(this.g, timestep, timeFeatures);
    const hidden = this.g.silu(this.rows(`${TIME}.time_embedder.linear_1`, features, timeFeatures, width, "f32"));
    return { features, embedded: this.rows(`${TIME}.time_embedder.linear_2`, hidden, width, width, "f32") };
  }

  /** temb [B, width] -> [B, 6, width]. */
  timeModulation(temb: Name): Name {
    const { width } = this.#sizes;
    const rows = this.rows(`${TIME}.time_proj`, this.g.silu(temb), width, 6 * width, "f32");
    return this.g.reshape(rows, [-1, 6, width]);
  }

  /** Text rows [B, L, from] -> [B, L, width]. */
  text(rows: Name, from: number): Name {
    const { width } = this.#sizes;
    const hidden = this.g.geluTanh(this.linear(`${TIME}.text_embedder.linear_1`, rows, rows, from, width));
    return this.linear(`${TIME}.text_embedder.linear_2`, hidden, rows, width, width);
  }

  modulations(block: string, tMod: Name): Modulations {
    const { g } = this;
    const table = g.add(this.weight(`${block}.scale_shift_table`, [1, 6, this.#sizes.width]), tMod);
    const [shiftSa, scaleSa, gateSa, shiftFf, scaleFf, gateFf] = g.split(table, 1, [1, 1, 1, 1, 1, 1]) as Six;
    return { shiftSa, scaleSa, gateSa, shiftFf, scaleFf, gateFf };
  }

  layerNorm(x: Name): Name {
    return this.g.layerNorm(x, this.#sizes.width, this.#sizes.epsilon);
  }

  /** LayerNorm with the learnt scale and shift called `name`. */
  affineNorm(name: string, x: Name): Name {
    const { width, epsilon } = this.#sizes;
    const [scale, bias] = ["weight", "bias"].map((part) => this.weight(`${name}.${part}`, [width]));
    return this.g.layerNorm(x, width, epsilon, scale, bias);
  }

  #rms(name: string, value: Name): Name {
    const { g } = this;
    const { width, epsilon } = this.#sizes;
    const scale = this.weight(name, [width]);
    if (this.#arithmetic.operators === "fused") return g.rmsNorm(value, scale, epsilon);
    const mean = g.op("ReduceMean", [g.mul(value, value), g.i64s([-1])], { keepdims: { int: 1 } });
    return g.mul(g.op("Div", [value, g.op("Sqrt", [g.add(mean, g.f32(epsilon))])]), scale);
  }

  /** Neighbouring pairs of every head of `value` [B, N, width] turned. */
  #turn(value: Name, rope: Rotary): Name {
    const { g } = this;
    const { heads, headWidth, width } = this.#sizes;
    if (this.#arithmetic.operators === "fused")
      return g.fused("RotaryEmbedding", [value, g.i64s([0]), rope.cos, rope.sin], {
        num_heads: { int: heads },
        interleaved: { int: 1 },
      });
    const [a, b] = g.split(g.reshape(value, [0, 0, heads, headWidth / 2, 2]), 4, [1, 1]) as [Name, Name];
    const [cos, sin] = [rope.cos, rope.sin].map((table) => g.op("Unsqueeze", [table, g.i64s([0, 2, 4])])) as Two;
    const turned = [g.op("Sub", [g.mul(a, cos), g.mul(b, sin)]), g.add(g.mul(a, sin), g.mul(b, cos))];
    return g.reshape(g.concat(turned, 4), [0, 0, width]);
  }

  /** softmax(q kᵀ / √headWidth) v over heads, all [B, N, width]. */
  #mix(q: Name, k: Name, v: Name): Name {
    const { g } = this;
    const { heads, headWidth, width } = this.#sizes;
    if (this.#arithmetic.operators === "fused")
      return g.fused("MultiHeadAttention", [q, k, v], { num_heads: { int: heads } });
    const apart = (value: Name, order: readonly number[]): Name =>
      g.transpose(g.reshape(value, [0, 0, heads, headWidth]), order);
    const scores = this.#from(g.op("MatMul", [apart(q, [0, 2, 1, 3]), apart(k, [0, 2, 3, 1])]));
    const shares = g.op("Softmax", [g.mul(scores, g.f32(1 / Math.sqrt(headWidth)))], { axis: { int: -1 } });
    const mixed = g.op("MatMul", [this.#to(this.#arithmetic.type, shares), apart(v, [0, 2, 1, 3])]);
    return g.reshape(g.transpose(mixed, [0, 2, 1, 3]), [0, 0, width]);
  }

  /** Attention `at`: queries from `from`, keys and values from `to`, turned by the rotary table when given. All [B, N, width], f32. */
  attention(at: string, from: Name, to: Name, rope?: Rotary): Name {
    const { width } = this.#sizes;
    const { type } = this.#arithmetic;
    const normed = (name: string, norm: string, value: Name): Name => {
      const scaled = this.#rms(`${at}.${norm}.weight`, this.linear(`${at}.${name}`, value, value, width, width));
      return this.#to(type, rope === undefined ? scaled : this.#turn(scaled, rope));
    };
    const q = normed("to_q", "norm_q", from);
    const k = normed("to_k", "norm_k", to);
    const v = this.g.back(this.rows(`${at}.to_v`, to, width, width), to, width);
    return this.linear(`${at}.to_out.0`, this.#mix(q, k, v), from, width, width);
  }

  /** Last norm and projection of `x` [B, N, width] and the cells back in the shape of `latent`. */
  head(x: Name, temb: Name, latent: Name): { normed: Name; velocity: Name } {
    const { g } = this;
    const { width, channels, patch } = this.#sizes;
    const table = g.add(this.weight("scale_shift_table", [1, 2, width]), g.op("Unsqueeze", [temb, g.i64s([1])]));
    const [shift, scale] = g.split(table, 1, [1, 1]) as Two;
    const normed = this.layerNorm(x);
    const out = this.linear("proj_out", g.modulate(normed, scale, shift), x, width, patch[0] * patch[1] * channels);
    const shape = g.op("Shape", [latent]);
    const [batch, , frames, height, columns] = g.split(shape, 0, [1, 1, 1, 1, 1]) as [Name, Name, Name, Name, Name];
    const down = (size: Name, by: number): Name => g.op("Div", [size, g.i64s([by])]);
    const cells = g.concat(
      [batch, frames, down(height, patch[0]), down(columns, patch[1]), g.i64s([patch[0], patch[1], channels])],
      0,
    );
    const cellular = g.transpose(g.op("Reshape", [out, cells]), [0, 6, 1, 2, 4, 3, 5]);
    return { normed, velocity: g.op("Reshape", [cellular, shape]) };
  }
}

type Two = [Name, Name];
type Six = [Name, Name, Name, Name, Name, Name];
