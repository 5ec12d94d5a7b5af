// The causal video decoder as two graphs over the same weights: `first` makes one frame of the first latent frame, `next` four
// frames of a later one, with what it needs of the past as caches in and out. Normalised latents in, frames in [-1, 1] out.
import type { ConfigFile } from "./config-file.ts";
import { conv, pixelShuffle, residual } from "./convolutions.ts";
import { GraphBuilder, type Name } from "./graph-builder.ts";
import type { Weights } from "./weights.ts";

export type DecoderSizes = {
  readonly channels: number;
  readonly mean: readonly number[];
  readonly std: readonly number[];
  readonly temporal: number;
  readonly spatial: number;
  readonly width: number;
  readonly blocks: number;
};

export function decoderSizes(config: ConfigFile): DecoderSizes {
  const channels = config.count("latent_channels");
  return {
    channels,
    mean: config.numbers("latents_mean", channels),
    std: config.numbers("latents_std", channels),
    temporal: config.count("temporal"),
    spatial: config.count("spatial"),
    width: config.count("width"),
    blocks: config.count("blocks"),
  };
}

/** Frames of `features` [frames, width, h, w] -> [frames, 3, 8h, 8w], each frame by itself. */
function addFrames(g: GraphBuilder, weights: Weights, features: Name): Name {
  let u = pixelShuffle(g, conv(g, weights, "up1", features), 2);
  u = residual(g, weights, "r1a", "r1b", u);
  u = pixelShuffle(g, conv(g, weights, "up2", u), 2);
  u = residual(g, weights, "r2a", "r2b", u);
  return pixelShuffle(g, conv(g, weights, "out", u), 2);
}

function shapeOf(channels: number): (number | string)[] {
  return [1, channels, "h", "w"];
}

/**
 * z [1, C, h, w] (and cache.0 .. cache.blocks) -> frames [1 or temporal, 3, H, W], cache_out.0 .. cache_out.blocks.
 * Cache 0 is the latent frame before, cache i + 1 the input of block i for it; before the first frame all are zero.
 */
export function decoderGraph(weights: Weights, sizes: DecoderSizes, part: "first" | "next"): GraphBuilder {
  const g = new GraphBuilder(`decoder.${part}`);
  const frames = part === "first" ? 1 : sizes.temporal;
  const perChannel = [1, sizes.channels, 1, 1];
  const caches: Name[] = [];
  const previous = (value: Name, channels: number): Name => {
    const name = `cache.${caches.length}`;
    caches.push(value);
    return part === "first" ? g.mul(value, g.f32(0)) : g.input(name, "f32", shapeOf(channels));
  };
  const latent = g.input("z", "f32", shapeOf(sizes.channels));
  const z = g.add(g.mul(latent, g.f32s(sizes.std, perChannel)), g.f32s(sizes.mean, perChannel));
  const both = g.concat([previous(z, sizes.channels), z], 1);
  let a = conv(g, weights, "conv_in", both);
  for (let block = 0; block < sizes.blocks; block++) {
    const pair = g.concat([previous(a, sizes.width), a], 1);
    a = g.add(a, conv(g, weights, `res.${block}.conv2`, g.silu(conv(g, weights, `res.${block}.conv1`, g.silu(pair)))));
  }
  const expand = (value: Name, channels: number): Name =>
    frames === 1 ? value : g.reshape(value, [frames, channels, 0, 0]);
  const features = expand(conv(g, weights, `head_${part}`, a), sizes.width);
  const shortcut = expand(
    conv(g, weights, `skip_${part}`, part === "first" ? z : both),
    3 * sizes.spatial * sizes.spatial,
  );
  const picture = g.add(addFrames(g, weights, features), pixelShuffle(g, shortcut, sizes.spatial));
  g.output(part === "first" ? "frame" : "frames", g.op("Clip", [picture, g.f32(-1), g.f32(1)]), "f32", [
    frames,
    3,
    "H",
    "W",
  ]);
  for (const [index, value] of caches.entries()) {
    g.output(`cache_out.${index}`, value, "f32", shapeOf(index === 0 ? sizes.channels : sizes.width));
  }
  return g;
}
