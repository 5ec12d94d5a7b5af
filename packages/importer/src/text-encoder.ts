// The UMT5-style text encoder as a graph: token ids and mask -> context rows. Relative position bias in every layer, scores not
// scaled, padded keys masked, padded rows zero. Source: transformers' UMT5EncoderModel.
import type { ConfigFile } from "./config-file.ts";
import { GraphBuilder, type FloatType, type Name } from "./graph-builder.ts";
import type { Weights } from "./weights.ts";

const MASKED = -1e9;
/** Largest token table: Wan's has 256,384 rows. */
const TOKENS_MAX = 1 << 20;

export type TextEncoderSizes = {
  readonly width: number;
  readonly headWidth: number;
  readonly heads: number;
  readonly layers: number;
  readonly ffnWidth: number;
  /** Rows of the token table, which may be more than there are tokens. */
  readonly tokens: number;
  readonly buckets: number;
  readonly distanceMax: number;
  readonly epsilon: number;
};

export function textEncoderSizes(config: ConfigFile): TextEncoderSizes {
  config.oneOf("feed_forward_proj", ["gated-gelu"]);
  const buckets = config.count("relative_attention_num_buckets");
  config.expect("relative_attention_num_buckets", buckets % 4 === 0, "a multiple of 4: near and far, both ways");
  return {
    width: config.count("d_model"),
    headWidth: config.count("d_kv"),
    heads: config.count("num_heads"),
    layers: config.count("num_layers"),
    ffnWidth: config.count("d_ff"),
    tokens: config.countTo("vocab_size", TOKENS_MAX),
    buckets,
    distanceMax: config.count("relative_attention_max_distance"),
    epsilon: config.number("layer_norm_epsilon"),
  };
}

/**
 * Bucket of a distance (key index - query index), bidirectional. Whole-number arithmetic: distances such as 16 or 32 lie exactly
 * on a boundary of the logarithm, where rounding would decide.
 */
export function relativeBucket(distance: number, buckets: number, distanceMax: number): number {
  const half = buckets / 2;
  const exact = half / 2;
  const size = Math.abs(distance);
  const side = distance > 0 ? half : 0;
  if (size < exact) return side + size;
  const steps = half - exact;
  let bucket = exact;
  // size / exact >= (distanceMax / exact) ^ (step / steps), raised to the power of `steps`.
  for (let step = 1; step < steps; step++) {
    const left = BigInt(size) ** BigInt(steps) * BigInt(exact) ** BigInt(step);
    const right = BigInt(distanceMax) ** BigInt(step) * BigInt(exact) ** BigInt(steps);
    if (left >= right) bucket = exact + step;
  }
  return side + bucket;
}

/** Bucket of every pair of positions, i64 [L, L]. */
function addBuckets(g: GraphBuilder, ids: Name, sizes: TextEncoderSizes): Name {
  const reach = sizes.distanceMax;
  const table = Array.from({ length: 2 * reach + 1 }, (_, at) => relativeBucket(at - reach, sizes.buckets, reach));
  const length = g.op("Squeeze", [g.op("Shape", [ids], { start: { int: 1 }, end: { int: 2 } })]);
  const positions = g.op("Range", [g.i64(0), length, g.i64(1)]);
  const distance = g.op("Sub", [
    g.op("Unsqueeze", [positions, g.i64s([0])]),
    g.op("Unsqueeze", [positions, g.i64s([1])]),
  ]);
  const clipped = g.op("Clip", [distance, g.i64(-reach), g.i64(reach)]);
  return g.op("Gather", [g.i64s(table), g.add(clipped, g.i64(reach))]);
}

/** What every layer needs. */
type Encoder = {
  readonly g: GraphBuilder;
  readonly weights: Weights;
  readonly sizes: TextEncoderSizes;
  /** What linear layers compute in. */
  readonly type: FloatType;
};

/** `value` [B, L, from] through linear layer `name` without bias -> [B, L, to], f32. */
function addLinear({ g, weights, type }: Encoder, name: string, value: Name, from: number, to: number): Name {
  weights.expectShape(`${name}.weight`, [to, from]);
  const rows = g.gemm(weights, name, g.reshape(value, [-1, from]), false, type);
  return g.back(type === "f32" ? rows : g.cast(rows, "f32"), value, to);
}

/** Self-attention of layer prefix `at` over `x` [B, L, width]; `buckets` [L, L], `mask` [B, 1, 1, L] added to the scores. */
function addAttention(encoder: Encoder, at: string, x: Name, buckets: Name, mask: Name): Name {
  const { g, weights, sizes } = encoder;
  const inner = sizes.heads * sizes.headWidth;
  const heads = (name: string, order: readonly number[]): Name =>
    g.transpose(
      g.reshape(addLinear(encoder, `${at}.${name}`, x, sizes.width, inner), [0, 0, sizes.heads, sizes.headWidth]),
      order,
    );
  const bias = `${at}.relative_attention_bias.weight`;
  weights.expectShape(bias, [sizes.buckets, sizes.heads]);
  const table = g.weight(weights, bias);
  const added = g.op("Unsqueeze", [g.transpose(g.op("Gather", [table, buckets]), [2, 0, 1]), g.i64s([0])]);
  const scores = g.op("MatMul", [heads("q", [0, 2, 1, 3]), heads("k", [0, 2, 3, 1])]);
  const shares = g.op("Softmax", [g.add(g.add(scores, added), mask)], { axis: { int: -1 } });
  const mixed = g.transpose(g.op("MatMul", [shares, heads("v", [0, 2, 1, 3])]), [0, 2, 1, 3]);
  return addLinear(encoder, `${at}.o`, g.reshape(mixed, [0, 0, inner]), inner, sizes.width);
}

/** The rows of the token table for `ids`; files name it as shared with a decoder, or as the encoder's own. */
function addEmbedding({ g, weights, sizes }: Encoder, ids: Name): Name {
  const own = "encoder.embed_tokens.weight";
  const [name, other] = weights.has("shared.weight") || !weights.has(own) ? ["shared.weight", own] : [own, ""];
  weights.expectShape(name!, [sizes.tokens, sizes.width]);
  // The same table under both names.
  if (weights.has(other!)) weights.expectShape(other!, [sizes.tokens, sizes.width]);
  return g.cast(g.op("Gather", [g.stored(weights, name!), ids]), "f32");
}

/** ids i64 [B, L], mask i64 [B, L] -> rows f32 [B, L, width], rows outside the mask zero. */
export function textEncoderGraph(
  name: string,
  weights: Weights,
  sizes: TextEncoderSizes,
  type: FloatType = "f32",
): GraphBuilder {
  const g = new GraphBuilder(name);
  const encoder = { g, weights, sizes, type };
  const ids = g.input("ids", "i64", ["batch", "tokens"]);
  const kept = g.cast(g.input("mask", "i64", ["batch", "tokens"]), "f32");
  const mask = g.mul(g.op("Sub", [g.f32(1), g.op("Unsqueeze", [kept, g.i64s([1, 2])])]), g.f32(MASKED));
  const buckets = addBuckets(g, ids, sizes);
  const norm = (at: string, value: Name): Name => {
    weights.expectShape(`${at}.weight`, [sizes.width]);
    return g.rmsNorm(value, g.weight(weights, `${at}.weight`), sizes.epsilon);
  };
  let x = addEmbedding(encoder, ids);
  for (let layer = 0; layer < sizes.layers; layer++) {
    const at = `encoder.block.${layer}.layer`;
    const normed = norm(`${at}.0.layer_norm`, x);
    x = g.add(x, addAttention(encoder, `${at}.0.SelfAttention`, normed, buckets, mask));
    const h = norm(`${at}.1.layer_norm`, x);
    const dense = `${at}.1.DenseReluDense`;
    const wide = (name: string): Name => addLinear(encoder, `${dense}.${name}`, h, sizes.width, sizes.ffnWidth);
    const hidden = g.mul(g.geluTanh(wide("wi_0")), wide("wi_1"));
    x = g.add(x, addLinear(encoder, `${dense}.wo`, hidden, sizes.ffnWidth, sizes.width));
  }
  const rows = g.mul(norm("encoder.final_layer_norm", x), g.op("Unsqueeze", [kept, g.i64s([2])]));
  g.output("rows", rows, "f32", ["batch", "tokens", sizes.width]);
  return g;
}
