// The UMT5-style text encoder as a graph: token ids and mask -> context rows. Relative position bias in every layer, scores not
// scaled, padded keys masked, padded rows zero. Source: transformers' UMT5EncoderModel.
import type { ConfigFile } from "./config-file.ts";
import { GraphBuilder, type Name } from "./graph-builder.ts";
import type { Weights } from "./weights.ts";

const MASKED = -1e9;

export type TextEncoderSizes = {
  readonly width: number;
  readonly headWidth: number;
  readonly heads: number;
  readonly layers: number;
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

/** Self-attention of layer prefix `at` over `x` [B, L, width]; `buckets` [L, L], `mask` [B, 1, 1, L] added to the scores. */
function addAttention(
  g: GraphBuilder,
  weights: Weights,
  at: string,
  x: Name,
  buckets: Name,
  mask: Name,
  sizes: TextEncoderSizes,
): Name {
  const heads = (name: string, order: readonly number[]): Name =>
    g.transpose(g.reshape(g.linear(weights, `${at}.${name}`, x, false), [0, 0, sizes.heads, sizes.headWidth]), order);
  const table = g.weight(weights, `${at}.relative_attention_bias.weight`);
  const bias = g.op("Unsqueeze", [g.transpose(g.op("Gather", [table, buckets]), [2, 0, 1]), g.i64s([0])]);
  const scores = g.op("MatMul", [heads("q", [0, 2, 1, 3]), heads("k", [0, 2, 3, 1])]);
  const shares = g.op("Softmax", [g.add(g.add(scores, bias), mask)], { axis: { int: -1 } });
  const mixed = g.transpose(g.op("MatMul", [shares, heads("v", [0, 2, 1, 3])]), [0, 2, 1, 3]);
  return g.linear(weights, `${at}.o`, g.reshape(mixed, [0, 0, sizes.heads * sizes.headWidth]), false);
}

/** ids i64 [B, L], mask i64 [B, L] -> rows f32 [B, L, width], rows outside the mask zero. */
export function textEncoderGraph(weights: Weights, sizes: TextEncoderSizes): GraphBuilder {
  const g = new GraphBuilder("text-encoder");
  const ids = g.input("ids", "i64", ["batch", "tokens"]);
  const kept = g.op("Cast", [g.input("mask", "i64", ["batch", "tokens"])], { to: { int: 1 } });
  const mask = g.mul(g.op("Sub", [g.f32(1), g.op("Unsqueeze", [kept, g.i64s([1, 2])])]), g.f32(MASKED));
  const buckets = addBuckets(g, ids, sizes);
  const norm = (name: string, value: Name): Name =>
    g.rmsNorm(value, g.weight(weights, `${name}.weight`), sizes.epsilon);
  let x = g.op("Gather", [g.weight(weights, "shared.weight"), ids]);
  for (let layer = 0; layer < sizes.layers; layer++) {
    const at = `encoder.block.${layer}.layer`;
    x = g.add(
      x,
      addAttention(g, weights, `${at}.0.SelfAttention`, norm(`${at}.0.layer_norm`, x), buckets, mask, sizes),
    );
    const h = norm(`${at}.1.layer_norm`, x);
    const dense = (name: string, value: Name): Name =>
      g.linear(weights, `${at}.1.DenseReluDense.${name}`, value, false);
    x = g.add(x, dense("wo", g.mul(g.geluTanh(dense("wi_0", h)), dense("wi_1", h))));
  }
  const rows = g.mul(norm("encoder.final_layer_norm", x), g.op("Unsqueeze", [kept, g.i64s([2])]));
  g.output("rows", rows, "f32", ["batch", "tokens", sizes.width]);
  return g;
}
