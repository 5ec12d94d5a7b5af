// Wan's diffusion transformer as one graph: a noisy latent, its timestep and text rows in, the velocity out. Batch, frames, rows and
// columns are free. Source: diffusers' WanTransformer3DModel.
import type { ConfigFile } from "./config-file.ts";
import { DitParts, type Arithmetic, type DitPartSizes } from "./dit-parts.ts";
import { GraphBuilder, type Name } from "./graph-builder.ts";
import { addRotary, addTokenGrid } from "./positions.ts";
import type { Weights } from "./weights.ts";

/** Wan's; its configuration does not name it. */
const ROPE_THETA = 10_000;

export type WanDitSizes = DitPartSizes & {
  readonly layers: number;
  readonly textWidth: number;
  readonly ffnWidth: number;
  /** Whether text is attended to from normed rows. */
  readonly crossNorm: boolean;
  /** Most tokens along one axis. */
  readonly axisTokensMax: number;
};

const KNOWN = [
  "patch_size",
  "num_attention_heads",
  "attention_head_dim",
  "in_channels",
  "out_channels",
  "text_dim",
  "freq_dim",
  "ffn_dim",
  "num_layers",
  "cross_attn_norm",
  "qk_norm",
  "eps",
  "rope_max_seq_len",
  "image_dim",
  "added_kv_proj_dim",
  "pos_embed_seq_len",
];

/** Throws ConfigFileError for what this architecture does not have. */
export function wanDitSizes(config: ConfigFile): WanDitSizes {
  config.oneOf("_class_name", ["WanTransformer3DModel"]);
  config.expectOnly(KNOWN, "_");
  for (const imageOnly of ["image_dim", "added_kv_proj_dim", "pos_embed_seq_len"]) config.expectValue(imageOnly, null);
  config.oneOf("qk_norm", ["rms_norm_across_heads"]);
  const [frames, height, width] = config.numbers("patch_size", 3) as [number, number, number];
  const isPatch = frames === 1 && [height, width].every((size) => Number.isSafeInteger(size) && size >= 1);
  config.expect("patch_size", isPatch, "1 frame and whole sides");
  const channels = config.count("in_channels");
  config.expectValue("out_channels", channels);
  const heads = config.count("num_attention_heads");
  const headWidth = config.count("attention_head_dim");
  config.expect("attention_head_dim", headWidth % 2 === 0, "an even number: rotary embedding turns pairs");
  const timeFeatures = config.count("freq_dim");
  config.expect("freq_dim", timeFeatures % 2 === 0, "an even number: cosines and sines");
  return {
    channels,
    patch: [height, width],
    layers: config.count("num_layers"),
    heads,
    headWidth,
    width: heads * headWidth,
    textWidth: config.count("text_dim"),
    timeFeatures,
    epsilon: config.number("eps"),
    ffnWidth: config.count("ffn_dim"),
    crossNorm: config.flag("cross_attn_norm"),
    axisTokensMax: config.count("rope_max_seq_len"),
  };
}

/** Told of values between, by the names of diffusers' modules. */
type Probe = (name: string, value: Name, shape?: readonly (number | string)[]) => void;

export type WanDitOptions = Arithmetic & {
  /** Also give values between as outputs `inner.<name>`. */
  readonly inner?: boolean;
};

function addBlock(
  parts: DitParts,
  sizes: WanDitSizes,
  index: number,
  x: Name,
  given: { tMod: Name; ctx: Name; cos: Name; sin: Name },
  probe: Probe,
): Name {
  const { g } = parts;
  const at = `blocks.${index}`;
  const tell = (name: string, value: Name): Name => {
    probe(`block.${index}.${name}`, value);
    return value;
  };
  const mod = parts.modulations(at, given.tMod);
  const normed = tell("norm1", parts.layerNorm(x));
  const h = g.modulate(normed, mod.scaleSa, mod.shiftSa);
  const afterSelf = g.add(x, g.mul(mod.gateSa, tell("attn1", parts.attention(`${at}.attn1`, h, h, given))));
  const crossed = sizes.crossNorm ? tell("norm2", parts.affineNorm(`${at}.norm2`, afterSelf)) : afterSelf;
  const afterCross = g.add(afterSelf, tell("attn2", parts.attention(`${at}.attn2`, crossed, given.ctx)));
  const rows = g.modulate(tell("norm3", parts.layerNorm(afterCross)), mod.scaleFf, mod.shiftFf);
  const hidden = g.geluTanh(parts.rows(`${at}.ffn.net.0.proj`, rows, sizes.width, sizes.ffnWidth));
  const fed = tell("ffn", parts.linear(`${at}.ffn.net.2`, hidden, x, sizes.ffnWidth, sizes.width));
  const out = g.add(afterCross, g.mul(mod.gateFf, fed));
  probe(`block.${index}`, out);
  return out;
}

/**
 * latent [batch, C, frames, height, width], timestep [batch], context [batch, text, textWidth], all f32 -> velocity, as the latent.
 * Text rows of zeros take part: cross-attention has no mask.
 */
export function wanDitGraph(name: string, weights: Weights, sizes: WanDitSizes, options: WanDitOptions): GraphBuilder {
  const g = new GraphBuilder(name);
  const parts = new DitParts(g, weights, sizes, options);
  const shape = ["batch", sizes.channels, "frames", "height", "width"];
  const inner: (() => void)[] = [];
  const probe: Probe = (called, value, dims = ["batch", "tokens", sizes.width]) =>
    inner.push(() => g.output(`inner.${called}`, value, "f32", dims));
  const latent = g.input("latent", "f32", shape);
  const timestep = g.input("timestep", "f32", ["batch"]);
  const context = g.input("context", "f32", ["batch", "text", sizes.textWidth]);
  const patches = parts.patches(latent);
  const rope = addRotary(g, addTokenGrid(g, patches, g.f32s([0])), sizes.headWidth, ROPE_THETA);
  const time = parts.time(timestep);
  const tMod = parts.timeModulation(time.embedded);
  const ctx = parts.text(context, sizes.textWidth);
  probe("patch_embedding", patches, ["batch", sizes.width, "frames", "rows", "columns"]);
  probe("time_sincos", time.features, ["batch", sizes.timeFeatures]);
  probe("temb", time.embedded, ["batch", sizes.width]);
  probe("timestep_proj", tMod, ["batch", 6, sizes.width]);
  probe("text_embedded", ctx, ["batch", "text", sizes.width]);
  let x = parts.tokens(patches);
  for (let index = 0; index < sizes.layers; index++)
    x = addBlock(parts, sizes, index, x, { tMod, ctx, ...rope }, probe);
  const { normed, velocity } = parts.head(x, time.embedded, latent);
  probe("norm_out", normed);
  g.output("velocity", velocity, "f32", shape);
  if (options.inner === true) for (const output of inner) output();
  return g;
}
