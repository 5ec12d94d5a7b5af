// Makes a model folder of the starter's layout with seeded random weights, of any size. The clips it gives are noise: it exists so
// that arithmetic, services and benches can be tested without trained weights. Same options, same bytes.
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { writeTensors, type Dense } from "./safetensors-file.ts";

export type TinyOptions = {
  /** Hidden width; a multiple of heads * 12 keeps rotary shares whole. */
  readonly width?: number;
  readonly heads?: number;
  readonly layers?: number;
  readonly experts?: number;
  readonly topK?: number;
  readonly expertHidden?: number;
  readonly channels?: number;
  readonly textWidth?: number;
  readonly maxTokens?: number;
  readonly frames?: number;
  readonly pixelWidth?: number;
  readonly pixelHeight?: number;
  readonly seed?: number;
  /** Comes with a latent upsampler. */
  readonly upsampler?: boolean;
  /** Comes with a draft: a trunk of its own over the same experts. */
  readonly draft?: boolean;
};
export type TinySizes = Required<TinyOptions>;

function tinySizes(options: TinyOptions = {}): TinySizes {
  const width = options.width ?? 48;
  return {
    width,
    heads: 4,
    layers: 2,
    experts: 4,
    topK: 2,
    expertHidden: 4 * width,
    channels: 8,
    textWidth: 32,
    maxTokens: 12,
    frames: 5,
    pixelWidth: 64,
    pixelHeight: 48,
    seed: 1,
    upsampler: false,
    draft: false,
    ...options,
  };
}

/** Uniform numbers in [-1, 1) from a seed (mulberry32). */
export function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 31 - 1;
  };
}

/** Collects tensors by name: `matrix` scaled to keep variance, `small` for biases and tables, `near1` for norm scales. */
class Recipe {
  readonly tensors = new Map<string, Dense>();
  readonly #random: () => number;
  constructor(seed: number) {
    this.#random = seeded(seed);
  }
  fill(name: string, shape: readonly number[], scale: number, centre = 0): void {
    const count = shape.reduce((product, size) => product * size, 1);
    this.tensors.set(name, {
      shape,
      data: Float32Array.from({ length: count }, () => centre + scale * this.#random()),
    });
  }
  matrix(name: string, shape: readonly number[], gain = 1): void {
    const fanIn = shape.slice(1).reduce((product, size) => product * size, 1);
    this.fill(name, shape, gain * Math.sqrt(3 / fanIn));
  }
  linear(name: string, out: number, input: number, gain = 1): void {
    this.matrix(`${name}.weight`, [out, input], gain);
    this.fill(`${name}.bias`, [out], 0.1);
  }
  conv(name: string, out: number, input: number, kernel: number, gain = 1): void {
    this.matrix(`${name}.weight`, [out, input, kernel, kernel], gain);
    this.fill(`${name}.bias`, [out], 0.1);
  }
  near1(name: string, size: number): void {
    this.fill(name, [size], 0.2, 1);
  }
}

const LETTERS = "abcdefghijklmnopqrstuvwxyz";

function textEncoder({ textWidth: d, seed }: TinySizes): { config: object; tensors: Map<string, Dense> } {
  const recipe = new Recipe(seed + 1);
  const [heads, headWidth, hidden, layers, buckets] = [2, 8, 2 * d, 2, 32];
  recipe.fill("shared.weight", [LETTERS.length + 4, d], 1);
  for (let layer = 0; layer < layers; layer++) {
    const at = `encoder.block.${layer}.layer`;
    recipe.near1(`${at}.0.layer_norm.weight`, d);
    for (const name of ["q", "k", "v"])
      recipe.matrix(`${at}.0.SelfAttention.${name}.weight`, [heads * headWidth, d], 0.6);
    recipe.matrix(`${at}.0.SelfAttention.o.weight`, [d, heads * headWidth]);
    recipe.fill(`${at}.0.SelfAttention.relative_attention_bias.weight`, [buckets, heads], 1);
    recipe.near1(`${at}.1.layer_norm.weight`, d);
    for (const name of ["wi_0", "wi_1"]) recipe.matrix(`${at}.1.DenseReluDense.${name}.weight`, [hidden, d]);
    recipe.matrix(`${at}.1.DenseReluDense.wo.weight`, [d, hidden]);
  }
  recipe.near1("encoder.final_layer_norm.weight", d);
  const config = {
    vocab_size: LETTERS.length + 4,
    d_model: d,
    d_kv: headWidth,
    num_heads: heads,
    d_ff: hidden,
    num_layers: layers,
    relative_attention_num_buckets: buckets,
    relative_attention_max_distance: 128,
    layer_norm_epsilon: 1e-6,
    feed_forward_proj: "gated-gelu",
  };
  return { config, tensors: recipe.tensors };
}

function transformer(sizes: TinySizes): { config: object; tensors: Map<string, Dense> } {
  const { width: d, channels, experts, expertHidden, textWidth } = sizes;
  const recipe = new Recipe(sizes.seed + 2);
  recipe.matrix("patch_embedding.weight", [d, channels, 1, 2, 2]);
  recipe.fill("patch_embedding.bias", [d], 0.1);
  recipe.linear("pos_embedding", d, 96);
  const at = "condition_embedder";
  recipe.linear(`${at}.time_embedder.linear_1`, d, 256);
  recipe.linear(`${at}.time_embedder.linear_2`, d, d);
  recipe.linear(`${at}.text_embedder.linear_1`, d, textWidth);
  recipe.linear(`${at}.text_embedder.linear_2`, d, d);
  recipe.linear(`${at}.pooled_embedder`, d, textWidth);
  recipe.linear(`${at}.time_proj`, 6 * d, d);
  for (let block = 0; block < sizes.layers; block++) {
    const b = `blocks.${block}`;
    recipe.fill(`${b}.scale_shift_table`, [1, 6, d], 0.5);
    for (const attention of ["attn1", "attn2"]) {
      for (const name of ["to_q", "to_k", "to_v", "to_out.0"]) recipe.linear(`${b}.${attention}.${name}`, d, d);
      for (const name of ["norm_q", "norm_k"]) recipe.near1(`${b}.${attention}.${name}.weight`, d);
    }
    recipe.near1(`${b}.norm2.weight`, d);
    recipe.fill(`${b}.norm2.bias`, [d], 0.1);
    recipe.matrix(`${b}.ffn.gate.weight`, [experts, d]);
    for (const [name, out, input] of [
      ["1", expertHidden, d],
      ["2", d, expertHidden],
    ] as const) {
      recipe.fill(`${b}.ffn.experts.w${name}`, [experts, out, input], Math.sqrt(3 / input));
      recipe.fill(`${b}.ffn.experts.b${name}`, [experts, out], 0.1);
    }
  }
  recipe.fill("scale_shift_table", [1, 2, d], 0.5);
  recipe.linear("proj_out", 4 * channels, d);
  const config = {
    in_channels: channels,
    out_channels: channels,
    patch_size: [1, 2, 2],
    num_layers: sizes.layers,
    num_attention_heads: sizes.heads,
    attention_head_dim: d / sizes.heads,
    text_dim: textWidth,
    freq_dim: 256,
    eps: 1e-6,
    num_experts: experts,
    num_experts_per_tok: sizes.topK,
    expert_hidden: expertHidden,
    gate: { scores: "softmax", renormalise: true },
    pooled_text: true,
    rope_theta: 10000,
    pos_dim: 96,
    train_grid: [(sizes.frames + 3) / 4, sizes.pixelHeight / 16, sizes.pixelWidth / 16],
  };
  return { config, tensors: recipe.tensors };
}

function decoder({ channels, seed }: TinySizes): { config: object; tensors: Map<string, Dense> } {
  const recipe = new Recipe(seed + 3);
  const random = seeded(seed + 4);
  const [width, mid, low, blocks] = [16, 12, 8, 2];
  recipe.conv("conv_in", width, 2 * channels, 3);
  for (let block = 0; block < blocks; block++) {
    recipe.conv(`res.${block}.conv1`, width, 2 * width, 3);
    recipe.conv(`res.${block}.conv2`, width, width, 3, 0.5);
  }
  recipe.conv("head_first", width, width, 1);
  recipe.conv("head_next", 4 * width, width, 1);
  recipe.conv("up1", 4 * mid, width, 3);
  recipe.conv("r1a", mid, mid, 3);
  recipe.conv("r1b", mid, mid, 3, 0.5);
  recipe.conv("up2", 4 * low, mid, 3);
  recipe.conv("r2a", low, low, 3);
  recipe.conv("r2b", low, low, 3, 0.5);
  recipe.conv("out", 12, low, 3, 0.3);
  recipe.conv("skip_first", 192, channels, 1, 0.3);
  recipe.conv("skip_next", 4 * 192, 2 * channels, 1, 0.3);
  const config = {
    latent_channels: channels,
    latents_mean: Array.from({ length: channels }, () => 0.2 * random()),
    latents_std: Array.from({ length: channels }, () => 1 + 0.2 * random()),
    temporal: 4,
    spatial: 8,
    width,
    mid,
    low,
    blocks,
    latent_to_rgb: Array.from({ length: channels }, () => [random(), random(), random()]),
    latent_to_rgb_bias: [0, 0, 0],
  };
  return { config, tensors: recipe.tensors };
}

/** Twice as many rows and columns. */
function upsampler({ channels, seed }: TinySizes): { config: object; tensors: Map<string, Dense> } {
  const recipe = new Recipe(seed + 5);
  const [width, fine] = [12, 8];
  recipe.conv("conv_in", width, channels, 3);
  for (const [part, size] of [
    ["coarse.0", width],
    ["coarse.1", width],
    ["fine.0", fine],
  ] as const) {
    recipe.conv(`${part}.conv1`, size, size, 3);
    recipe.conv(`${part}.conv2`, size, size, 3, 0.5);
  }
  recipe.conv("up", 4 * fine, width, 3);
  recipe.conv("out", channels, fine, 3, 0.3);
  recipe.conv("skip", 4 * channels, channels, 1, 0.5);
  const config = { latent_channels: channels, scale: 2, width, blocks: 2, fine_width: fine, fine_blocks: 1 };
  return { config, tensors: recipe.tensors };
}

/** A tokenizer that spells: one token a letter. Unigram, as T5's, with the closing 1. */
function tokenizer(): object {
  const special = ["<pad>", "</s>", "<unk>"];
  const pieces = [...special, "\u2581", ...LETTERS.split("")];
  const space = { type: "Metaspace", replacement: "\u2581", prepend_scheme: "always", split: true };
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: special.map((content, id) => ({
      id,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })),
    normalizer: { type: "Lowercase" },
    pre_tokenizer: space,
    post_processor: {
      type: "TemplateProcessing",
      single: [{ Sequence: { id: "A", type_id: 0 } }, { SpecialToken: { id: "</s>", type_id: 0 } }],
      pair: [
        { Sequence: { id: "A", type_id: 0 } },
        { SpecialToken: { id: "</s>", type_id: 0 } },
        { Sequence: { id: "B", type_id: 0 } },
      ],
      special_tokens: { "</s>": { id: "</s>", ids: [1], tokens: ["</s>"] } },
    },
    decoder: space,
    model: {
      type: "Unigram",
      unk_id: 2,
      vocab: pieces.map((piece, id) => [piece, id < special.length ? 0 : -2]),
      byte_fallback: false,
    },
  };
}

/** Writes the model folder; it is made when missing. */
export function writeTinyModel(folder: string, options: TinyOptions = {}): TinySizes {
  const sizes = tinySizes(options);
  for (const [part, { config, tensors }] of Object.entries({
    text_encoder: textEncoder(sizes),
    transformer: transformer(sizes),
    vae: decoder(sizes),
    ...(sizes.upsampler && { upsampler: upsampler(sizes) }),
  })) {
    mkdirSync(join(folder, part), { recursive: true });
    writeFileSync(join(folder, part, "config.json"), JSON.stringify(config, null, 1));
    writeTensors(join(folder, part, "model.safetensors"), tensors);
  }
  if (sizes.draft) {
    const { tensors } = transformer({ ...sizes, seed: sizes.seed + 10 });
    const trunk = new Map([...tensors].filter(([name]) => !name.includes(".experts.")));
    writeTensors(join(folder, "transformer", "draft.safetensors"), trunk);
  }
  mkdirSync(join(folder, "tokenizer"), { recursive: true });
  writeFileSync(join(folder, "tokenizer", "tokenizer.json"), JSON.stringify(tokenizer()));
  const index = {
    _class_name: "MoevieStarterPipeline",
    name: "moevie-tiny",
    frame_rate: 8,
    steady_levels: 0,
    ...(sizes.upsampler && { upsampler: true }),
    ...(sizes.draft && { draft: { steps: 2, guidance: 1 } }),
    windows: { overlap: 1, lead_in: 0, period: 3 },
    frames: sizes.frames,
    width: sizes.pixelWidth,
    height: sizes.pixelHeight,
    schedule: { shift: 3, grid: "diffusers" },
    sampler: "unipc",
    steps: 4,
    guidance: 2,
    max_text_tokens: sizes.maxTokens,
  };
  writeFileSync(join(folder, "model_index.json"), JSON.stringify(index, null, 1));
  return sizes;
}
