// Wan's video auto-encoder as four graphs over the same weights: decoder and encoder, each for the clip's first chunk and for a later one,
// with what is needed of the past as caches in and out. Source: diffusers' AutoencoderKLWan.
import { GraphBuilder, type Name } from "./graph-builder.ts";
import { WanVaeParts, type WanVaeSizes } from "./wan-vae.ts";
import type { Weights } from "./weights.ts";

type Chunk = "first" | "next";

const perChannel = (channels: number): readonly number[] => [1, channels, 1, 1, 1];

/**
 * z [1, C, h, w], normalised (and cache.<n>) -> frame [1, 3, 8h, 8w] of the first latent frame or frames [4, 3, 8h, 8w] of a later one, and
 * cache_out.<n>. Pictures are as they leave the last convolution: whoever shows them clamps to [-1, 1], once tiles are blended.
 */
export function wanDecoderGraph(weights: Weights, sizes: WanVaeSizes, chunk: Chunk): GraphBuilder {
  const g = new GraphBuilder(`decoder.${chunk}`);
  const parts = new WanVaeParts(g, weights, chunk === "first");
  const { channels, base, multipliers, temporal, mean, std } = sizes;
  const widths = multipliers.map((by) => by * base).toReversed();
  const z = g.op("Unsqueeze", [g.input("z", "f32", [1, channels, "h", "w"]), g.i64s([2])]);
  const latent = g.add(g.mul(z, g.f32s(std, perChannel(channels))), g.f32s(mean, perChannel(channels)));
  let width = widths[0]!;
  let x = parts.causal(
    "decoder.conv_in",
    parts.pointwise("post_quant_conv", latent, channels, channels),
    channels,
    width,
  );
  x = parts.middle("decoder.mid_block", x, width);
  for (const [level, to] of widths.entries()) {
    const at = `decoder.up_blocks.${level}`;
    for (let block = 0; block <= sizes.blocks; block++) {
      x = parts.residual(`${at}.resnets.${block}`, x, width, to);
      width = to;
    }
    if (level === widths.length - 1) break;
    x = parts.up(`${at}.upsamplers.0`, x, width, temporal.at(-1 - level)!);
    width /= 2;
  }
  const out = parts.causal("decoder.conv_out", g.silu(parts.norm("decoder.norm_out", x, width)), width, 3);
  const pictures = g.op("Squeeze", [g.transpose(out, [0, 2, 1, 3, 4]), g.i64s([0])]);
  const frames = chunk === "first" ? 1 : 2 ** temporal.filter(Boolean).length;
  g.output(chunk === "first" ? "frame" : "frames", pictures, "f32", [frames, 3, "H", "W"]);
  parts.outputCaches();
  return g;
}

/**
 * frames [1 or 4, 3, H, W] in [-1, 1] (and cache.<n>) -> mean and logvar [1, C, H/8, W/8] of one latent frame as the network gives them, z
 * [1, C, H/8, W/8]: the mean, normalised; and cache_out.<n>.
 */
export function wanEncoderGraph(weights: Weights, sizes: WanVaeSizes, chunk: Chunk): GraphBuilder {
  const g = new GraphBuilder(`encoder.${chunk}`);
  const parts = new WanVaeParts(g, weights, chunk === "first");
  const { channels, base, multipliers, temporal, mean, std } = sizes;
  const count = chunk === "first" ? 1 : 2 ** temporal.filter(Boolean).length;
  const frames = g.input("frames", "f32", [count, 3, "H", "W"]);
  const clip = g.transpose(g.op("Unsqueeze", [frames, g.i64s([0])]), [0, 2, 1, 3, 4]);
  let width = base;
  let x = parts.causal("encoder.conv_in", clip, 3, width);
  let block = 0;
  for (const [level, by] of multipliers.entries()) {
    for (let i = 0; i < sizes.blocks; i++) {
      x = parts.residual(`encoder.down_blocks.${block++}`, x, width, base * by);
      width = base * by;
    }
    const halved = temporal[level];
    if (halved !== undefined) x = parts.down(`encoder.down_blocks.${block++}`, x, width, halved);
  }
  x = parts.middle("encoder.mid_block", x, width);
  const features = parts.causal(
    "encoder.conv_out",
    g.silu(parts.norm("encoder.norm_out", x, width)),
    width,
    2 * channels,
  );
  const moments = parts.pointwise("quant_conv", features, 2 * channels, 2 * channels);
  const [middle, spread] = g.split(g.op("Squeeze", [moments, g.i64s([2])]), 1, [channels, channels]) as [Name, Name];
  const flat = [1, channels, 1, 1];
  const z = g.op("Div", [g.op("Sub", [middle, g.f32s(mean, flat)]), g.f32s(std, flat)]);
  for (const [name, value] of Object.entries({ mean: middle, logvar: spread, z }))
    g.output(name, value, "f32", [1, channels, "h", "w"]);
  parts.outputCaches();
  return g;
}
