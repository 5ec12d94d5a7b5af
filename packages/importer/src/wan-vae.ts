// What Wan's video auto-encoder is made of, for one chunk of frames at a time: causal convolutions that carry their last two frames from
// chunk to chunk, residuals, attention within a frame, resampling. The weights have the names of diffusers' AutoencoderKLWan. All f32.
import type { ConfigFile } from "./config-file.ts";
import type { GraphBuilder, Name } from "./graph-builder.ts";
import type { Weights } from "./weights.ts";

/** Frames a causal convolution of three looks back. */
const BACK = 2;
/** Below it a norm is not divided by. */
const NORM_MIN = 1e-12;

export type WanVaeSizes = {
  readonly channels: number;
  readonly base: number;
  readonly multipliers: readonly number[];
  readonly blocks: number;
  /** Of each step down from one resolution to the next, whether time is halved too. */
  readonly temporal: readonly boolean[];
  readonly mean: readonly number[];
  readonly std: readonly number[];
};

const KNOWN = [
  "z_dim",
  "base_dim",
  "dim_mult",
  "num_res_blocks",
  "temperal_downsample",
  "latents_mean",
  "latents_std",
  "attn_scales",
  "decoder_base_dim",
  "in_channels",
  "out_channels",
  "is_residual",
  "patch_size",
  "dropout",
  "scale_factor_spatial",
  "scale_factor_temporal",
  "clip_output",
];

/** Throws ConfigFileError for what this architecture does not have. */
export function wanVaeSizes(config: ConfigFile): WanVaeSizes {
  config.oneOf("_class_name", ["AutoencoderKLWan"]);
  config.expectOnly(KNOWN, "_");
  config.expectValue("is_residual", false);
  config.expectValue("clip_output", true);
  for (const absent of ["decoder_base_dim", "patch_size"]) config.expectValue(absent, null);
  for (const colours of ["in_channels", "out_channels"]) config.expectValue(colours, 3);
  if (config.has("attn_scales")) config.numbers("attn_scales", 0);
  const channels = config.count("z_dim");
  const multipliers = config.numbers("dim_mult");
  const whole = multipliers.length > 1 && multipliers.every((by) => Number.isSafeInteger(by) && by >= 1 && by <= 64);
  config.expect("dim_mult", whole, "two or more whole numbers from 1 to 64");
  const temporal = config.flags("temperal_downsample", multipliers.length - 1);
  config.expectValue("scale_factor_spatial", 2 ** temporal.length);
  config.expectValue("scale_factor_temporal", 2 ** temporal.filter(Boolean).length);
  const base = config.count("base_dim");
  config.expect("base_dim", (base * multipliers[0]!) % 2 === 0, "an even number: steps up halve the channels");
  return {
    channels,
    base,
    multipliers,
    blocks: config.count("num_res_blocks"),
    temporal,
    mean: config.numbers("latents_mean", channels),
    std: config.numbers("latents_std", channels),
  };
}

/** Adds the auto-encoder's parts to one graph; `first` is of the clip's first chunk, which has no past. */
export class WanVaeParts {
  readonly g: GraphBuilder;
  readonly first: boolean;
  readonly #weights: Weights;
  /** What the next chunk needs of this one: value, channels and frames. */
  readonly #caches: { value: Name; channels: number; frames: number }[] = [];

  constructor(g: GraphBuilder, weights: Weights, first: boolean) {
    this.g = g;
    this.#weights = weights;
    this.first = first;
  }

  weight(name: string, shape: readonly number[]): Name {
    this.#weights.expectShape(name, shape);
    return this.g.weight(this.#weights, name);
  }

  /** The past of `frames` frames under the next cache's name; in the first chunk there is none. */
  #past(channels: number, frames: number): Name | undefined {
    if (this.first) return undefined;
    return this.g.input(`cache.${this.#caches.length}`, "f32", this.#cacheShape(this.#caches.length, channels, frames));
  }

  #cacheShape(index: number, channels: number, frames: number): readonly (number | string)[] {
    return [1, channels, frames, `height.${index}`, `width.${index}`];
  }

  #keep(value: Name, channels: number, frames: number): void {
    this.#caches.push({ value, channels, frames });
  }

  /** Makes everything kept an output cache_out.<n>. To be called once, at the end. */
  outputCaches(): void {
    for (const [index, { value, channels, frames }] of this.#caches.entries())
      this.g.output(`cache_out.${index}`, value, "f32", this.#cacheShape(index, channels, frames));
  }

  /** Counts as used what only later chunks use. */
  #expectConv(name: string, from: number, to: number, kernel: readonly number[]): void {
    this.#weights.expectShape(`${name}.weight`, [to, from, ...kernel]);
    this.#weights.expectShape(`${name}.bias`, [to]);
  }

  #conv(
    name: string,
    value: Name,
    from: number,
    to: number,
    kernel: readonly number[],
    pads: readonly number[],
    strides?: readonly number[],
  ): Name {
    const inputs = [value, this.weight(`${name}.weight`, [to, from, ...kernel]), this.weight(`${name}.bias`, [to])];
    return this.g.op("Conv", inputs, {
      kernel_shape: { ints: kernel },
      pads: { ints: pads },
      ...(strides && { strides: { ints: strides } }),
    });
  }

  /** The last `frames` frames of `value` [1, c, t, h, w]. */
  #last(value: Name, frames: number): Name {
    const { g } = this;
    return g.op("Slice", [value, g.i64s([-frames]), g.i64s([Number.MAX_SAFE_INTEGER]), g.i64s([2])]);
  }

  /** `value` with `frames` frames of nothing before it. */
  #padded(value: Name, frames: number): Name {
    const { g } = this;
    return g.op("Pad", [value, g.i64s([0, 0, frames, 0, 0, 0, 0, 0, 0, 0])]);
  }

  /** A causal convolution over 3 frames and `side` by `side` pixels, sizes kept. */
  causal(name: string, value: Name, from: number, to: number, side: 1 | 3 = 3): Name {
    const past = this.#past(from, BACK);
    const longer = past === undefined ? this.#padded(value, BACK) : this.g.concat([past, value], 2);
    this.#keep(this.#last(longer, BACK), from, BACK);
    const pad = (side - 1) / 2;
    return this.#conv(name, longer, from, to, [3, side, side], [0, pad, pad, 0, pad, pad]);
  }

  /** A convolution within each pixel. */
  pointwise(name: string, value: Name, from: number, to: number): Name {
    return this.#conv(name, value, from, to, [1, 1, 1], [0, 0, 0, 0, 0, 0]);
  }

  /** x / max(|x|, 1e-12) √c gamma over the channels (axis 1); `tail`: axes that gamma has behind them. */
  norm(name: string, value: Name, channels: number, tail: readonly number[] = [1, 1, 1]): Name {
    const { g } = this;
    const length = g.op("ReduceL2", [value, g.i64s([1])], { keepdims: { int: 1 } });
    const unit = g.op("Div", [value, g.op("Max", [length, g.f32(NORM_MIN)])]);
    return g.mul(g.mul(unit, g.f32(Math.sqrt(channels))), this.weight(`${name}.gamma`, [channels, ...tail]));
  }

  residual(at: string, value: Name, from: number, to: number): Name {
    const { g } = this;
    const short = from === to ? value : this.pointwise(`${at}.conv_shortcut`, value, from, to);
    const half = this.causal(`${at}.conv1`, g.silu(this.norm(`${at}.norm1`, value, from)), from, to);
    return g.add(short, this.causal(`${at}.conv2`, g.silu(this.norm(`${at}.norm2`, half, to)), to, to));
  }

  /** [1, c, t, h, w] as pictures [t, c, h, w]. */
  #pictures(value: Name, channels: number): Name {
    const { g } = this;
    const size = g.op("Shape", [value], { start: { int: 3 } });
    return g.op("Reshape", [g.transpose(value, [0, 2, 1, 3, 4]), g.concat([g.i64s([-1, channels]), size], 0)]);
  }

  /** Pictures [t, c, h, w] as [1, c, t, h, w]. */
  #clip(value: Name): Name {
    return this.g.transpose(this.g.op("Unsqueeze", [value, this.g.i64s([0])]), [0, 2, 1, 3, 4]);
  }

  /** Attention of one head among the pixels of each frame. */
  attention(at: string, value: Name, channels: number): Name {
    const { g } = this;
    const pictures = this.#pictures(value, channels);
    const qkv = this.#conv(
      `${at}.to_qkv`,
      this.norm(`${at}.norm`, pictures, channels, [1, 1]),
      channels,
      3 * channels,
      [1, 1],
      [0, 0, 0, 0],
    );
    const [q, k, v] = g.split(g.reshape(qkv, [0, 0, -1]), 1, [channels, channels, channels]) as [Name, Name, Name];
    const scores = g.mul(g.op("MatMul", [g.transpose(q, [0, 2, 1]), k]), g.f32(1 / Math.sqrt(channels)));
    const mixed = g.op("MatMul", [v, g.transpose(g.op("Softmax", [scores], { axis: { int: -1 } }), [0, 2, 1])]);
    const shaped = g.op("Reshape", [mixed, g.op("Shape", [pictures])]);
    return g.add(value, this.#clip(this.#conv(`${at}.proj`, shaped, channels, channels, [1, 1], [0, 0, 0, 0])));
  }

  /** Rows and columns doubled, and frames too when `temporal`: of the clip's first chunk the one frame stays one. Channels are halved. */
  up(at: string, value: Name, channels: number, temporal: boolean): Name {
    const { g } = this;
    const longer = temporal ? this.#moreFrames(at, value, channels) : value;
    const scales = g.f32s([1, 1, 2, 2]);
    const large = g.op("Resize", [this.#pictures(longer, channels), "", scales], {
      mode: { text: "nearest" },
      coordinate_transformation_mode: { text: "asymmetric" },
      nearest_mode: { text: "floor" },
    });
    return this.#clip(this.#conv(`${at}.resample.1`, large, channels, channels / 2, [3, 3], [1, 1, 1, 1]));
  }

  /** Two frames of each; the first chunk's passes and is not looked back at. */
  #moreFrames(at: string, value: Name, channels: number): Name {
    const { g } = this;
    const past = this.#past(channels, BACK);
    if (past === undefined) {
      this.#expectConv(`${at}.time_conv`, channels, 2 * channels, [3, 1, 1]);
      this.#keep(g.mul(this.#padded(value, BACK - 1), g.f32(0)), channels, BACK);
      return value;
    }
    const seen = g.concat([past, value], 2);
    this.#keep(this.#last(seen, BACK), channels, BACK);
    const pairs = this.#conv(`${at}.time_conv`, seen, channels, 2 * channels, [3, 1, 1], [0, 0, 0, 0, 0, 0]);
    const size = g.op("Shape", [value], { start: { int: 3 } });
    const apart = g.op("Reshape", [pairs, g.concat([g.i64s([2, channels, -1]), size], 0)]);
    const woven = g.transpose(apart, [1, 2, 0, 3, 4]);
    return g.op("Reshape", [woven, g.concat([g.i64s([1, channels, -1]), size], 0)]);
  }

  /** Rows and columns halved, and frames too when `temporal`: the clip's first frame stays one. */
  down(at: string, value: Name, channels: number, temporal: boolean): Name {
    // Pads after the last row and column only.
    const small = this.#conv(
      `${at}.resample.1`,
      this.#pictures(value, channels),
      channels,
      channels,
      [3, 3],
      [0, 0, 1, 1],
      [2, 2],
    );
    const clip = this.#clip(small);
    if (!temporal) return clip;
    const past = this.#past(channels, 1);
    this.#keep(this.#last(clip, 1), channels, 1);
    if (past !== undefined)
      return this.#conv(
        `${at}.time_conv`,
        this.g.concat([past, clip], 2),
        channels,
        channels,
        [3, 1, 1],
        [0, 0, 0, 0, 0, 0],
        [2, 1, 1],
      );
    this.#expectConv(`${at}.time_conv`, channels, channels, [3, 1, 1]);
    return clip;
  }

  /** Residual, attention, residual. */
  middle(at: string, value: Name, channels: number): Name {
    const before = this.residual(`${at}.resnets.0`, value, channels, channels);
    const attended = this.attention(`${at}.attentions.0`, before, channels);
    return this.residual(`${at}.resnets.1`, attended, channels, channels);
  }
}
