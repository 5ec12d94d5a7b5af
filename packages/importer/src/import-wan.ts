// Imports a diffusers `WanPipeline` folder, of one transformer (Wan2.1) or two of two noise levels (Wan2.2): which graphs it becomes and
// what its manifest says. What a folder of that layout leaves open (length, rate, size, steps, guidance) is what the reference repository
// uses for the model. Reads headers and configurations; weights are read only when their hashes are asked for.
import { join } from "node:path";
import { ConfigFileError, readConfigFile, type ConfigFile } from "./config-file.ts";
import type { FloatType, GraphBuilder } from "./graph-builder.ts";
import { textEncoderGraph, textEncoderSizes, type TextEncoderSizes } from "./text-encoder.ts";
import { wanDitGraph, wanDitSizes, type WanDitSizes } from "./wan-dit.ts";
import { wanSchedule, type WanSchedule } from "./wan-scheduler.ts";
import { wanVaeSizes, type WanVaeSizes } from "./wan-vae.ts";
import { wanDecoderGraph, wanEncoderGraph } from "./wan-vae-graphs.ts";
import { openWeightFolder } from "./weight-folder.ts";
import type { Weights } from "./weights.ts";
import { ROOT, type ImportedModel } from "./write-bundle.ts";

const TOKENIZER = "tokenizer/tokenizer.json";
/** Text rows the transformer attends to, zeros after those of the text. */
const TEXT_TOKENS = 512;
const FRAME_RATE = 16;
const FRAMES = 81;
/** Latent frames that neighbouring windows of a long clip share, and how many of a later window's first count for nothing. */
const WINDOWS = { overlap: 6, leadIn: 1, period: 1 };
const TRAIN_TIMESTEPS = 1000;
/** Of transformers: the smaller of the two sizes of Wan2.1. */
const SMALL_WIDTH_MAX = 1536;

/** What the reference repository uses where a diffusers folder says nothing, or what a conversion left there. */
type Reference = {
  readonly width: number;
  readonly height: number;
  readonly steps: number;
  readonly guidance: number;
  readonly guidanceLow?: number;
  /** Where the folder's is not the model's own. */
  readonly shift?: number;
};
const TWO_LEVELS: Reference = { width: 1280, height: 720, steps: 40, guidance: 4, guidanceLow: 3, shift: 12 };
const ONE_LEVEL: Reference = { width: 1280, height: 720, steps: 50, guidance: 5 };
const ONE_LEVEL_SMALL: Reference = { width: 832, height: 480, steps: 50, guidance: 6, shift: 8 };

export type WanImportOptions = {
  readonly name: string;
  /** What the transformer computes in; the text encoder too where that is bf16. */
  readonly precision: FloatType;
  readonly negativePrompt?: string | undefined;
};

/** A graph's name, the folder it is read from and from which timestep on it is meant. */
type Expert = { readonly graph: string; readonly part: string; readonly from: number };
type Part<Sizes> = { readonly weights: Weights; readonly sizes: Sizes };
type Wan = {
  readonly experts: readonly (Expert & Part<WanDitSizes>)[];
  readonly text: Part<TextEncoderSizes>;
  readonly vae: Part<WanVaeSizes>;
  readonly schedule: WanSchedule;
};

function expertsOf(index: ConfigFile): readonly Expert[] {
  index.pair("transformer", ["WanTransformer3DModel"]);
  if (!index.hasPair("transformer_2")) {
    index.expectValue("boundary_ratio", null);
    return [{ graph: "denoiser", part: "transformer", from: 0 }];
  }
  index.pair("transformer_2", ["WanTransformer3DModel"]);
  const ratio = index.number("boundary_ratio");
  index.expect("boundary_ratio", ratio > 0 && ratio < 1, "a number between 0 and 1");
  return [
    { graph: "denoiser.high", part: "transformer", from: ratio * TRAIN_TIMESTEPS },
    { graph: "denoiser.low", part: "transformer_2", from: 0 },
  ];
}

async function openWan(folder: string): Promise<Wan> {
  const index = await readConfigFile(join(folder, "model_index.json"));
  index.oneOf("_class_name", ["WanPipeline"]);
  index.expectValue("expand_timesteps", false);
  index.pair("text_encoder", ["UMT5EncoderModel"]);
  index.pair("tokenizer", ["T5TokenizerFast", "T5Tokenizer"]);
  index.pair("vae", ["AutoencoderKLWan"]);
  const read = (part: string): Promise<ConfigFile> => readConfigFile(join(folder, part, "config.json"));
  const open = (part: string, stem: string): Promise<Weights> =>
    openWeightFolder(join(folder, part), `${ROOT}/${part}`, stem);
  const diffusion = "diffusion_pytorch_model";
  const experts = await Promise.all(
    expertsOf(index).map(async (expert) => ({
      ...expert,
      weights: await open(expert.part, diffusion),
      sizes: wanDitSizes(await read(expert.part)),
    })),
  );
  const text = { weights: await open("text_encoder", "model"), sizes: textEncoderSizes(await read("text_encoder")) };
  const vae = { weights: await open("vae", diffusion), sizes: wanVaeSizes(await read("vae")) };
  for (const { part, sizes } of experts) expectFitting(join(folder, part, "config.json"), sizes, { text, vae });
  await readConfigFile(join(folder, TOKENIZER));
  const schedule = wanSchedule(await readConfigFile(join(folder, "scheduler", "scheduler_config.json")));
  return { experts, text, vae, schedule };
}

/** Throws ConfigFileError where a transformer takes other values than the text encoder and the auto-encoder give. */
function expectFitting(file: string, sizes: WanDitSizes, { text, vae }: Pick<Wan, "text" | "vae">): void {
  if (sizes.channels !== vae.sizes.channels)
    throw new ConfigFileError(file, `in_channels is ${sizes.channels}, the auto-encoder's z_dim ${vae.sizes.channels}`);
  if (sizes.textWidth !== text.sizes.width)
    throw new ConfigFileError(file, `text_dim is ${sizes.textWidth}, the text encoder's d_model ${text.sizes.width}`);
}

function buildGraphs({ experts, text, vae }: Wan, precision: FloatType): GraphBuilder[] {
  // In f16 the sums of T5's feed-forward layers overflow: there the text encoder stays f32. The CPU has no bf16 arithmetic.
  const wide = precision === "bf16";
  const graphs = [
    textEncoderGraph("text-encoder", text.weights, text.sizes, wide ? "bf16" : "f32"),
    ...(wide ? [textEncoderGraph("text-encoder.f32", text.weights, text.sizes)] : []),
    ...experts.flatMap(({ graph, weights, sizes }) => [
      wanDitGraph(graph, weights, sizes, { type: precision, operators: "fused" }),
      wanDitGraph(`${graph}.plain`, weights, sizes, { type: precision, operators: "plain" }),
      ...(wide ? [wanDitGraph(`${graph}.f32`, weights, sizes, { type: "f32", operators: "fused" })] : []),
    ]),
    ...(["first", "next"] as const).flatMap((chunk) => [
      wanDecoderGraph(vae.weights, vae.sizes, chunk),
      wanEncoderGraph(vae.weights, vae.sizes, chunk),
    ]),
  ];
  for (const { weights } of [text, ...experts, vae]) weights.settle();
  return graphs;
}

function referenceOf(experts: Wan["experts"]): Reference {
  if (experts.length > 1) return TWO_LEVELS;
  return (experts[0]?.sizes.width ?? 0) <= SMALL_WIDTH_MAX ? ONE_LEVEL_SMALL : ONE_LEVEL;
}

function manifestOf({ experts, text, vae, schedule }: Wan, options: WanImportOptions): object {
  const { width, height, steps, guidance, guidanceLow, shift = schedule.shift } = referenceOf(experts);
  const { channels, temporal, mean, std } = vae.sizes;
  const [first] = experts;
  return {
    name: options.name,
    architecture: "wan",
    frameRate: FRAME_RATE,
    modelFrames: FRAMES,
    steadyLevels: 0,
    width,
    height,
    draws: "asked",
    latent: {
      channels,
      temporalStride: 2 ** temporal.filter(Boolean).length,
      spatialStride: 2 ** temporal.length,
      upsampling: 1,
      mean,
      std,
      toRgb: [],
      toRgbBias: [0, 0, 0],
    },
    text: { tokenizer: `${ROOT}/${TOKENIZER}`, maxTokens: TEXT_TOKENS, width: text.sizes.width, cleaning: "ftfy" },
    ...(options.negativePrompt !== undefined && { negativePrompt: options.negativePrompt }),
    denoiser: {
      patch: [1, ...(first?.sizes.patch ?? [])],
      gate: { kind: "timestep", from: experts.map(({ from }) => from) },
      graphs: experts.map(({ graph }) => graph),
      width: Math.max(...experts.map(({ sizes }) => sizes.width)),
      innerWidth: Math.max(...experts.map(({ sizes }) => sizes.ffnWidth)),
    },
    schedule: { shift, grid: schedule.grid },
    windows: WINDOWS,
    sampler: schedule.sampler,
    variants: { standard: { steps, guidance, ...(guidanceLow !== undefined && { guidanceLow }), graphs: "" } },
    parameters: {
      "text-encoder": text.weights.parameters,
      ...Object.fromEntries(experts.map(({ graph, weights }) => [graph, weights.parameters])),
      "auto-encoder": vae.weights.parameters,
    },
    precision: options.precision,
  };
}

/** What a summary says beyond the manifest, a line each. */
function notesOf({ experts, schedule }: Wan): readonly string[] {
  const { shift } = referenceOf(experts);
  return shift === undefined || shift === schedule.shift
    ? []
    : [
        `scheduler/scheduler_config.json has shift ${schedule.shift}; the reference uses ${shift} for this model, and so does the bundle. A request may ask for another.`,
      ];
}

/**
 * The model in `folder` (a real path). Throws ConfigFileError or SafetensorsError naming file and key or tensor: unknown classes and values,
 * pickles, tensors missing, misshapen or left over.
 */
export async function readWan(
  folder: string,
  options: WanImportOptions,
): Promise<ImportedModel & { readonly notes: readonly string[] }> {
  const wan = await openWan(folder);
  const graphs = buildGraphs(wan, options.precision);
  const parts: [string, Weights][] = [
    ["text_encoder", wan.text.weights],
    ...wan.experts.map(({ part, weights }) => [part, weights] as [string, Weights]),
    ["vae", wan.vae.weights],
  ];
  const files = parts.flatMap(([, weights]) => weights.locations.map((location) => location.slice(ROOT.length + 1)));
  return { graphs, files: [...files, TOKENIZER], manifest: manifestOf(wan, options), notes: notesOf(wan) };
}
