// The latent upsampler as one graph: a normalised latent frame to one of more rows and columns, each frame by itself.
import type { ConfigFile } from "./config-file.ts";
import { conv, pixelShuffle, residual } from "./convolutions.ts";
import { GraphBuilder, type Name } from "./graph-builder.ts";
import type { Weights } from "./weights.ts";

export type UpsamplerSizes = {
  readonly channels: number;
  /** Rows and columns out for each one in. */
  readonly scale: number;
  readonly blocks: number;
  readonly fineBlocks: number;
};

/** Throws ConfigFileError naming the key. */
export function upsamplerSizes(config: ConfigFile): UpsamplerSizes {
  return {
    channels: config.count("latent_channels"),
    scale: config.count("scale"),
    blocks: config.count("blocks"),
    fineBlocks: config.count("fine_blocks"),
  };
}

/** z [1, C, h, w] -> fine [1, C, scale * h, scale * w], both normalised. */
export function upsamplerGraph(
  weights: Weights,
  { channels, scale, blocks, fineBlocks }: UpsamplerSizes,
): GraphBuilder {
  const g = new GraphBuilder("latent-upsampler");
  const z = g.input("z", "f32", [1, channels, "h", "w"]);
  const chain = (from: Name, part: string, count: number): Name => {
    let a = from;
    for (let block = 0; block < count; block++)
      a = residual(g, weights, `${part}.${block}.conv1`, `${part}.${block}.conv2`, a);
    return a;
  };
  const coarse = chain(conv(g, weights, "conv_in", z), "coarse", blocks);
  const fine = chain(pixelShuffle(g, conv(g, weights, "up", g.silu(coarse)), scale), "fine", fineBlocks);
  const shortcut = pixelShuffle(g, conv(g, weights, "skip", z), scale);
  const out = g.add(conv(g, weights, "out", g.silu(fine)), shortcut);
  g.output("fine", out, "f32", [1, channels, "H", "W"]);
  return g;
}
