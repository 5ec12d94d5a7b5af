// Imports a folder of the starter's layout: writes graphs and a manifest beside which the weights are only named. The result
// appears under its final name complete or not at all. Reads weight files for their hashes, never copies them.
import { createHash, randomUUID } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, readFile, readdir, realpath, rename, rm, stat, writeFile } from "node:fs/promises";
import { basename, dirname, join, relative, resolve } from "node:path";
import { decoderGraph, decoderSizes, type DecoderSizes } from "./causal-decoder.ts";
import { ConfigFileError, readConfigFile, type ConfigFile } from "./config-file.ts";
import { expertGraph, expertSlotsGraph } from "./experts.ts";
import type { GraphBuilder } from "./graph-builder.ts";
import { upsamplerGraph, upsamplerSizes, type UpsamplerSizes } from "./latent-upsampler.ts";
import { ditSizes, MoeDit, type DitSizes } from "./moe-dit.ts";
import { textEncoderGraph, textEncoderSizes, type TextEncoderSizes } from "./text-encoder.ts";
import { openWeightFile, type Weights } from "./weights.ts";

/** Name under which a bundle's graphs and manifest speak of the folder of weights. */
const ROOT = "weights";
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

function buildGraphs(starter: Starter): Map<string, GraphBuilder> {
  const { sizes, weights } = starter.denoiser;
  const graphs = [
    textEncoderGraph(starter.text.weights, starter.text.sizes),
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
  return new Map(graphs.map((graph) => [graph.name, graph]));
}

async function describeFile(folder: string, path: string): Promise<{ path: string; bytes: number; sha256: string }> {
  const file = join(folder, path);
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(file, { highWaterMark: 1 << 20 })) hash.update(chunk as Buffer);
  return { path: `${ROOT}/${path}`, bytes: (await stat(file)).size, sha256: hash.digest("hex") };
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

function manifestOf(starter: Starter, roots: object, files: object[], graphs: object): object {
  const { index } = starter;
  const schedule = index.object("schedule");
  const windows = index.object("windows");
  return {
    format: "moevie-bundle/1",
    name: index.text("name"),
    architecture: "wan-moe",
    roots,
    files,
    frameRate: index.count("frame_rate"),
    modelFrames: index.count("frames"),
    steadyLevels: index.whole("steady_levels"),
    width: index.count("width"),
    height: index.count("height"),
    latent: latentFacts(starter),
    text: {
      tokenizer: `${ROOT}/${TOKENIZER}`,
      maxTokens: index.count("max_text_tokens"),
      width: starter.text.sizes.width,
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
    graphs,
    precision: "f32",
  };
}

/** Whether `target` holds the same bundle: the manifest, and graphs that nobody damaged since. */
async function isThere(scratch: string, target: string, manifest: string): Promise<boolean> {
  const existing = await readFile(join(target, "manifest.json"), "utf8").catch(() => undefined);
  if (existing !== manifest) return false;
  for (const name of await readdir(join(scratch, "graphs"))) {
    const [made, kept] = await Promise.all(
      [scratch, target].map((folder) => readFile(join(folder, "graphs", name)).catch(() => Buffer.alloc(0))),
    );
    if (kept === undefined || made?.equals(kept) !== true) return false;
  }
  return true;
}

/** Puts the finished `scratch` under `target`; a folder already there is replaced unless it holds the same. */
async function publish(scratch: string, target: string, manifest: string): Promise<void> {
  if (await isThere(scratch, target, manifest)) return;
  const old = `${scratch}.old`;
  const moved = await rename(target, old).then(
    () => true,
    () => false,
  );
  try {
    await rename(scratch, target);
  } catch (cause) {
    const winner = await readFile(join(target, "manifest.json"), "utf8").catch(() => undefined);
    if (winner !== manifest) {
      if (moved) await rename(old, target);
      throw cause;
    }
  }
  if (moved) await rm(old, { recursive: true, force: true });
}

/**
 * Imports `weightsDir` into the bundle folder `outDir` (made, or replaced when it differs). The weights stay where they are: the
 * manifest holds their folder relative to the bundle. Throws ConfigFileError or SafetensorsError naming file and key or tensor.
 */
export async function importStarter(weightsDir: string, outDir: string): Promise<void> {
  const weights = await realpath(weightsDir).catch(() => {
    throw new ConfigFileError(weightsDir, "is missing");
  });
  const starter = await openStarter(weights);
  const parent = dirname(resolve(outDir));
  await mkdir(parent, { recursive: true });
  const target = join(await realpath(parent), basename(resolve(outDir)));
  const scratch = join(dirname(target), `.${basename(target)}.${randomUUID()}`);
  try {
    await mkdir(join(scratch, "graphs"), { recursive: true });
    const graphs: Record<string, object> = {};
    const files: object[] = [];
    for (const [name, graph] of buildGraphs(starter)) {
      const bytes = graph.encode();
      const path = `graphs/${name}.onnx`;
      await writeFile(join(scratch, path), bytes);
      graphs[name] = { file: path, ...graph.signature() };
      files.push({ path, bytes: bytes.byteLength, sha256: createHash("sha256").update(bytes).digest("hex") });
    }
    const parts = ["text_encoder", "transformer", "vae", ...(starter.upsampler ? ["upsampler"] : [])];
    const stored = [...parts.map((part) => `${part}/model.safetensors`), ...(starter.draft ? [DRAFT] : [])];
    files.push(...(await Promise.all([...stored, TOKENIZER].map((path) => describeFile(weights, path)))));
    const manifest = `${JSON.stringify(manifestOf(starter, { [ROOT]: relative(target, weights) }, files, graphs), null, 1)}\n`;
    await writeFile(join(scratch, "manifest.json"), manifest);
    await publish(scratch, target, manifest);
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}
