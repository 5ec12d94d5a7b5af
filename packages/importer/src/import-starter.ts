// Imports a folder of the starter's layout: which graphs it becomes and what its manifest says.
import { join } from "node:path";
import { decoderGraph, decoderSizes, type DecoderSizes } from "./causal-decoder.ts";
import { readConfigFile, type ConfigFile } from "./config-file.ts";
import { expertGraph, expertSlotsGraph } from "./experts.ts";
import type { GraphBuilder } from "./graph-builder.ts";
import { upsamplerGraph, upsamplerSizes, type UpsamplerSizes } from "./latent-upsampler.ts";
import { ditSizes, MoeDit, type DitSizes } from "./moe-dit.ts";
import { textEncoderGraph, textEncoderSizes, type TextEncoderSizes } from "./text-encoder.ts";
import { openWeightFile, type Weights } from "./weights.ts";
import { modelFolder, ROOT, writeBundle, type OnRead, type WrittenBundle } from "./write-bundle.ts";

const TOKENIZER = "tokenizer/tokenizer.json";
const DRAFT = "transformer/draft.safetensors";
/** What the names of the draft's graphs begin with. */
const DRAFT_GRAPHS = "draft.";

type Starter = {
  readonly index: ConfigFile;
  readonly text: { weights: Weights; sizes: TextEncoderSizes };
  readonly denoiser: { weights: Weights; sizes: DitSizes };
  /** A trunk of its own for few steps, over the same experts; a model may come without one. */
  readonly draft: { weights: Weights; config: ConfigFile } | undefined;
  readonly decoder: { weights: Weights; sizes: DecoderSizes; config: ConfigFile };
  /** A model may come without one. */
  readonly upsampler: { weights: Weights; sizes: UpsamplerSizes } | undefined;
};

async function openStarter(folder: string): Promise<Starter> {
  const index = await readConfigFile(join(folder, "model_index.json"));
  index.oneOf("_class_name", ["MoevieStarterPipeline"]);
  const part = async (name: string): Promise<{ weights: Weights; config: ConfigFile }> => ({
    config: await readConfigFile(join(folder, name, "config.json")),
    weights: await openWeightFile(join(folder, name, "model.safetensors"), `${ROOT}/${name}/model.safetensors`),
  });
  const [text, denoiser, decoder] = await Promise.all([part("text_encoder"), part("transformer"), part("vae")]);
  const upsampler = index.has("upsampler") && index.flag("upsampler") ? await part("upsampler") : undefined;
  upsampler?.config.expect(
    "latent_channels",
    upsampler.config.count("latent_channels") === decoder.config.count("latent_channels"),
    "the decoder's",
  );
  const draft = index.has("draft")
    ? { config: index.object("draft"), weights: await openWeightFile(join(folder, DRAFT), `${ROOT}/${DRAFT}`) }
    : undefined;
  const sizes = ditSizes(denoiser.config);
  const { experts } = sizes.gate;
  for (let block = 0; block < sizes.layers; block++) {
    const at = `blocks.${block}.ffn`;
    for (const trunk of [denoiser, draft]) trunk?.weights.expectShape(`${at}.gate.weight`, [experts, sizes.width]);
    denoiser.weights.expectShape(`${at}.experts.w1`, [experts, sizes.expertHidden, sizes.width]);
    denoiser.weights.expectShape(`${at}.experts.w2`, [experts, sizes.width, sizes.expertHidden]);
  }
  return {
    index,
    text: { weights: text.weights, sizes: textEncoderSizes(text.config) },
    denoiser: { weights: denoiser.weights, sizes },
    draft,
    decoder: { ...decoder, sizes: decoderSizes(decoder.config) },
    upsampler: upsampler && { weights: upsampler.weights, sizes: upsamplerSizes(upsampler.config) },
  };
}

function buildGraphs(starter: Starter): GraphBuilder[] {
  const { sizes, weights } = starter.denoiser;
  const graphs = [
    textEncoderGraph("text-encoder", starter.text.weights, starter.text.sizes),
    ...new MoeDit(weights, weights, sizes, "").graphs(),
    ...(starter.draft ? new MoeDit(starter.draft.weights, weights, sizes, DRAFT_GRAPHS).graphs() : []),
    expertGraph(sizes.width, sizes.expertHidden),
    ...Array.from({ length: sizes.gate.experts }, (_, i) =>
      expertSlotsGraph(i + 1, sizes.width, weights, "blocks.0.ffn.experts"),
    ),
    decoderGraph(starter.decoder.weights, starter.decoder.sizes, "first"),
    decoderGraph(starter.decoder.weights, starter.decoder.sizes, "next"),
    ...(starter.upsampler ? [upsamplerGraph(starter.upsampler.weights, starter.upsampler.sizes)] : []),
  ];
  for (const part of [starter.text, starter.denoiser, starter.draft, starter.decoder, starter.upsampler])
    part?.weights.settle();
  return graphs;
}

function latentFacts({ decoder: { sizes, config }, upsampler }: Starter): object {
  return {
    channels: sizes.channels,
    temporalStride: sizes.temporal,
    spatialStride: sizes.spatial,
    upsampling: upsampler?.sizes.scale ?? 1,
    mean: sizes.mean,
    std: sizes.std,
    toRgb: config.rows("latent_to_rgb", sizes.channels, 3),
    toRgbBias: config.numbers("latent_to_rgb_bias", 3),
  };
}

function denoiserFacts(sizes: DitSizes): object {
  const { experts, topK, ...gate } = sizes.gate;
  return {
    layers: sizes.layers,
    experts,
    topK,
    hidden: sizes.width,
    expertHidden: sizes.expertHidden,
    patch: [1, ...sizes.patch],
    // ditSizes refuses a model that has either.
    gate: { kind: "token-topk", ...gate, selectionBias: false, sharedExperts: 0 },
    expertWeights: "blocks.{layer}.ffn.experts.{name}",
    file: `${ROOT}/transformer/model.safetensors`,
  };
}

function variantFacts(config: ConfigFile, graphs: string): object {
  return { steps: config.count("steps"), guidance: config.number("guidance"), graphs };
}

function manifestOf(starter: Starter): object {
  const { index } = starter;
  const schedule = index.object("schedule");
  const windows = index.object("windows");
  return {
    name: index.text("name"),
    architecture: "wan-moe",
    frameRate: index.count("frame_rate"),
    modelFrames: index.count("frames"),
    steadyLevels: index.whole("steady_levels"),
    width: index.count("width"),
    height: index.count("height"),
    draws: "trained",
    latent: latentFacts(starter),
    text: {
      tokenizer: `${ROOT}/${TOKENIZER}`,
      maxTokens: index.count("max_text_tokens"),
      width: starter.text.sizes.width,
      cleaning: "whitespace",
    },
    denoiser: denoiserFacts(starter.denoiser.sizes),
    schedule: { shift: schedule.number("shift"), grid: schedule.text("grid") },
    windows: {
      overlap: windows.count("overlap"),
      leadIn: windows.whole("lead_in"),
      period: windows.count("period"),
    },
    sampler: index.oneOf("sampler", ["unipc", "dpmpp", "euler"]),
    variants: {
      standard: variantFacts(index, ""),
      ...(starter.draft && { draft: variantFacts(starter.draft.config, DRAFT_GRAPHS) }),
    },
    parameters: {
      "text-encoder": starter.text.weights.parameters,
      denoiser: starter.denoiser.weights.parameters,
      ...(starter.draft && { "denoiser-draft": starter.draft.weights.parameters }),
      decoder: starter.decoder.weights.parameters,
      ...(starter.upsampler && { upsampler: starter.upsampler.weights.parameters }),
    },
    precision: "f32",
  };
}

/**
 * Imports `weightsDir` into the bundle folder `outDir` (made, or replaced when it differs). Throws ConfigFileError or SafetensorsError naming
 * file and key or tensor.
 */
export async function importStarter(weightsDir: string, outDir: string, onRead?: OnRead): Promise<WrittenBundle> {
  const folder = await modelFolder(weightsDir);
  const starter = await openStarter(folder);
  const graphs = buildGraphs(starter);
  const parts = ["text_encoder", "transformer", "vae", ...(starter.upsampler ? ["upsampler"] : [])];
  const stored = [...parts.map((part) => `${part}/model.safetensors`), ...(starter.draft ? [DRAFT] : [])];
  const model = { graphs, files: [...stored, TOKENIZER], manifest: manifestOf(starter) };
  return writeBundle(folder, outDir, model, { isHashed: () => true, onRead });
}
