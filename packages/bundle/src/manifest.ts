// What a bundle says about itself: the type of manifest.json and its check. Parsing happens here once; nothing inside re-checks.
import { BundleError } from "./bundle-error.ts";

export const BUNDLE_FORMAT = "moevie-bundle/1";
export const MANIFEST_FILE = "manifest.json";
/** Longest manifest that is read. */
export const MANIFEST_BYTES_MAX = 16 * 1024 * 1024;
/** Largest of the counts that a service makes room for before it has seen a weight. */
const COUNT_MAX = 65_536;

const TIMESTEP_MAX = 1000;
/** Most levels that finishing averages over: beyond it pictures would smear. */
const LEVELS_MAX = 32;

/** A size that is a name is free at run time. */
export type GraphValue = { readonly name: string; readonly type: string; readonly shape: readonly (number | string)[] };
export type GraphEntry = {
  readonly file: string;
  readonly inputs: readonly GraphValue[];
  readonly outputs: readonly GraphValue[];
};
/** `path` is inside the bundle, or begins with the name of a root. */
export type FileEntry = {
  readonly path: string;
  readonly bytes: number;
  /** Absent for weights that were not read in full when they were imported: their headers and sizes are in the digest. */
  readonly sha256?: string;
};

export type Gate = {
  readonly kind: "token-topk";
  readonly scores: "softmax" | "sigmoid";
  readonly renormalise: boolean;
  readonly selectionBias: boolean;
  readonly groups: number;
  readonly groupsKept: number;
  readonly scale: number;
  readonly sharedExperts: number;
};

/** A trunk whose feed-forward layers are experts, chosen for each token. */
export type TokenDenoiser = {
  readonly layers: number;
  readonly experts: number;
  readonly topK: number;
  readonly hidden: number;
  readonly expertHidden: number;
  /** Latent cells a token spans, [frames, height, width]. */
  readonly patch: readonly number[];
  readonly gate: Gate;
  /** Names of the stacked expert tensors, with {layer} and {name} (w1, b1, w2, b2) to fill in. */
  readonly expertWeights: string;
  /** The file those tensors are in. */
  readonly file: string;
};

/** Experts that are whole denoisers, chosen by how noisy the latent is. */
export type NoiseDenoiser = {
  readonly patch: readonly number[];
  readonly gate: {
    readonly kind: "timestep";
    /** Each expert is for timesteps from its own bound up to that of the one before it, falling, the last 0; 0 to 1000. */
    readonly from: readonly number[];
  };
  /** Names of the experts' graphs behind the variant's, in the order of the gate. */
  readonly graphs: readonly string[];
  /** Of a token's vector, and of its feed-forward layer, from which the memory of an evaluation is estimated; earlier bundles have neither. */
  readonly width?: number;
  readonly innerWidth?: number;
};

export function isNoiseDenoiser(denoiser: Manifest["denoiser"]): denoiser is NoiseDenoiser {
  return denoiser.gate.kind === "timestep";
}

/** Layers, and experts a layer, that shards hold: whole denoisers are one layer. */
export function expertsOf(denoiser: Manifest["denoiser"]): { readonly layers: number; readonly experts: number } {
  return isNoiseDenoiser(denoiser) ? { layers: 1, experts: denoiser.graphs.length } : denoiser;
}

/** A trunk over the experts that all variants share, and the steps and guidance it is meant for. */
export type Variant = {
  readonly steps: number;
  readonly guidance: number;
  /** Of steps for which the last of several noise-level experts is chosen, where it differs. */
  readonly guidanceLow?: number;
  /** The noise schedule, where it is not one of the grids: as many sigmas as steps, shifted already, falling from at most 1. */
  readonly sigmas?: readonly number[];
  /** What the names of its graphs begin with: context, entry, block.0, …, head, monolith. */
  readonly graphs: string;
};

export type Manifest = {
  readonly format: typeof BUNDLE_FORMAT;
  readonly name: string;
  readonly architecture: "wan" | "wan-moe";
  /** Folders outside the bundle its files may lie in, by name; relative to the bundle's folder, or absolute. */
  readonly roots: Readonly<Record<string, string>>;
  readonly files: readonly FileEntry[];
  /** Frames a second the model makes. */
  readonly frameRate: number;
  readonly modelFrames: number;
  /** Levels of 0 to 255 by which still places may swing from frame to frame as decoded; finishing averages within them. 0: not at all. */
  readonly steadyLevels: number;
  /** The size it was trained on. */
  readonly width: number;
  readonly height: number;
  /** What size it draws: always the trained one, which finishing scales, or the asked one. */
  readonly draws: "trained" | "asked";
  readonly latent: {
    readonly channels: number;
    readonly temporalStride: number;
    readonly spatialStride: number;
    /** Rows and columns that the graph latent-upsampler makes of one before decoding; 1: there is no such graph. */
    readonly upsampling: number;
    readonly mean: readonly number[];
    readonly std: readonly number[];
    /** [channels][3]: normalised latent to colour in [-1, 1]; empty: not known. */
    readonly toRgb: readonly (readonly number[])[];
    readonly toRgbBias: readonly number[];
  };
  readonly text: {
    readonly tokenizer: string;
    readonly maxTokens: number;
    readonly width: number;
    /** What is done to a text first: white space alone is put in order, or also what ftfy repairs and HTML's entities. */
    readonly cleaning: "whitespace" | "ftfy";
  };
  /** What is asked not to show when a request leaves it empty. */
  readonly negativePrompt?: string;
  readonly denoiser: TokenDenoiser | NoiseDenoiser;
  readonly schedule: { readonly shift: number; readonly grid: string };
  /** How clips longer than the model's are cut, in latent frames; `period`: after how many the model's time begins anew. */
  readonly windows: { readonly overlap: number; readonly leadIn: number; readonly period: number };
  readonly sampler: string;
  /** By name. */
  readonly variants: Readonly<Record<string, Variant>> & { readonly standard: Variant };
  /** Numbers of weights by piece. */
  readonly parameters: Readonly<Record<string, number>>;
  readonly graphs: Readonly<Record<string, GraphEntry>>;
  /** What the denoiser's linear layers and attention compute in. */
  readonly precision: "f32" | "f16" | "bf16";
};

type Check = (value: unknown) => boolean;
const isText: Check = (value) => typeof value === "string" && value !== "";
const isFlag: Check = (value) => typeof value === "boolean";
const isNumber: Check = (value) => typeof value === "number" && Number.isFinite(value);
const isWhole: Check = (value) => Number.isSafeInteger(value) && (value as number) >= 0;
const isCount: Check = (value) =>
  Number.isSafeInteger(value) && (value as number) >= 1 && (value as number) <= COUNT_MAX;
const isNumbers: Check = (value) => Array.isArray(value) && value.every(isNumber);
const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);
const isSha: Check = (value) => typeof value === "string" && /^[0-9a-f]{64}$/.test(value);
const isShape: Check = (value) => Array.isArray(value) && value.every((size) => isWhole(size) || isText(size));
const isValue: Check = (value) =>
  isObject(value) && isText(value["name"]) && isText(value["type"]) && isShape(value["shape"]);
const isValues: Check = (value) => Array.isArray(value) && value.every(isValue);
const isGraph: Check = (value) =>
  isObject(value) && isText(value["file"]) && isValues(value["inputs"]) && isValues(value["outputs"]);
/** Only weights may go without a hash. */
const isUnread = (file: Record<string, unknown>): boolean =>
  file["sha256"] === undefined && (file["path"] as string).endsWith(".safetensors");
const isFile: Check = (value) =>
  isObject(value) && isText(value["path"]) && isWhole(value["bytes"]) && (isSha(value["sha256"]) || isUnread(value));
const isSigmas = (sigmas: unknown, steps: unknown): boolean =>
  isNumbers(sigmas) &&
  (sigmas as number[]).length === steps &&
  (sigmas as number[]).every((sigma, i, all) => sigma > 0 && sigma <= 1 && sigma < (all[i - 1] ?? 2));
const isVariant: Check = (value) =>
  isObject(value) &&
  isCount(value["steps"]) &&
  isNumber(value["guidance"]) &&
  (value["guidanceLow"] === undefined || isNumber(value["guidanceLow"])) &&
  (value["sigmas"] === undefined || isSigmas(value["sigmas"], value["steps"])) &&
  typeof value["graphs"] === "string";
const every =
  (check: Check): Check =>
  (value) =>
    isObject(value) && Object.values(value).every(check);
const oneOf =
  (...allowed: readonly unknown[]): Check =>
  (value) =>
    allowed.includes(value);

type Field = readonly [path: string, check: Check, wanted: string];

const COUNT = `a whole number from 1 to ${COUNT_MAX}`;
const FIELDS: readonly Field[] = [
  ["name", isText, "a string"],
  ["architecture", oneOf("wan", "wan-moe"), '"wan" or "wan-moe"'],
  ["roots", every(isText), "folders by name"],
  ["files", (value) => Array.isArray(value) && value.every(isFile), "entries of path, bytes and sha256"],
  ["graphs", every(isGraph), "entries of file, inputs and outputs by name"],
  ["parameters", every(isWhole), "whole numbers by piece"],
  ["precision", oneOf("f32", "f16", "bf16"), '"f32", "f16" or "bf16"'],
  ["draws", oneOf("trained", "asked"), '"trained" or "asked"'],
  ["text.cleaning", oneOf("whitespace", "ftfy"), '"whitespace" or "ftfy"'],
  ["negativePrompt", (value) => value === undefined || isText(value), "a string, or nothing"],
  ["sampler", isText, "a string"],
  [
    "variants",
    every(isVariant),
    "entries of steps, guidance and graphs by name, any sigmas falling and as many as steps",
  ],
  ...["frameRate", "modelFrames", "width", "height"].map((path) => [path, isCount, COUNT] as const),
  ...["channels", "temporalStride", "spatialStride", "upsampling"].map(
    (key) => [`latent.${key}`, isCount, COUNT] as const,
  ),
  ...["mean", "std", "toRgbBias"].map((key) => [`latent.${key}`, isNumbers, "numbers"] as const),
  [
    "steadyLevels",
    (value) => isWhole(value) && (value as number) <= LEVELS_MAX,
    `a whole number from 0 to ${LEVELS_MAX}`,
  ],
  ["latent.toRgb", (value) => Array.isArray(value) && value.every(isNumbers), "rows of numbers"],
  ["text.tokenizer", isText, "a path"],
  ["text.maxTokens", isCount, COUNT],
  ["text.width", isCount, COUNT],
  ["denoiser.gate.kind", oneOf("token-topk", "timestep"), '"token-topk" or "timestep"'],
  ["denoiser.patch", (value) => Array.isArray(value) && value.every(isCount), "whole numbers of 1 or more"],
  ...["overlap", "period"].map((key) => [`windows.${key}`, isCount, COUNT] as const),
  ["windows.leadIn", isWhole, "a whole number"],
  ["schedule.shift", (value) => isNumber(value) && (value as number) > 0, "a number above 0"],
  ["schedule.grid", isText, "a string"],
];

const TOKEN_FIELDS: readonly Field[] = [
  ...["layers", "experts", "topK", "hidden", "expertHidden"].map((key) => [`denoiser.${key}`, isCount, COUNT] as const),
  ["denoiser.expertWeights", isText, "a string"],
  ["denoiser.file", isText, "a path"],
  ["denoiser.gate.scores", oneOf("softmax", "sigmoid"), '"softmax" or "sigmoid"'],
  ...["renormalise", "selectionBias"].map((key) => [`denoiser.gate.${key}`, isFlag, "true or false"] as const),
  ...["groups", "groupsKept"].map((key) => [`denoiser.gate.${key}`, isCount, COUNT] as const),
  ["denoiser.gate.scale", isNumber, "a number"],
  ["denoiser.gate.sharedExperts", isWhole, "a whole number"],
];

const NOISE_FIELDS: readonly Field[] = [
  [
    "denoiser.gate.from",
    (value) =>
      Array.isArray(value) && value.length > 0 && value.every((bound) => isNumber(bound) && bound <= TIMESTEP_MAX),
    `numbers up to ${TIMESTEP_MAX}`,
  ],
  ["denoiser.graphs", (value) => Array.isArray(value) && value.every(isText), "names of graphs"],
  ...["width", "innerWidth"].map(
    (key) =>
      [`denoiser.${key}`, (value: unknown) => value === undefined || isCount(value), `${COUNT}, or nothing`] as const,
  ),
];

function at(value: unknown, path: string): unknown {
  return path.split(".").reduce<unknown>((inner, key) => (isObject(inner) ? inner[key] : undefined), value);
}

/** Rules between fields: [field to blame, whether the rule holds, what is expected]. */
function rulesOf({
  latent,
  denoiser,
  windows,
  modelFrames,
  width,
  height,
  variants,
  graphs,
}: Manifest): readonly Rule[] {
  const { channels, spatialStride } = latent;
  const { patch } = denoiser;
  const perChannel = `one for each of ${channels} channels`;
  const [, patchHeight = 1, patchWidth = 1] = patch;
  const windowFrames = (modelFrames - 1) / latent.temporalStride + 1;
  const pieces = piecesOf(denoiser);
  return [
    ["variants", Object.hasOwn(variants, "standard"), 'one of the name "standard" among them'],
    ...Object.entries(variants).map(([name, variant]) => {
      const missing = pieces.map((piece) => variant.graphs + piece).find((graph) => !Object.hasOwn(graphs, graph));
      return [
        `variants.${name}.graphs`,
        missing === undefined,
        `what graphs begin with, there is no graph ${missing}`,
      ] as const;
    }),
    ["latent.mean", latent.mean.length === channels, perChannel],
    ["latent.std", latent.std.length === channels && latent.std.every((value) => value > 0), `${perChannel}, above 0`],
    [
      "latent.toRgb",
      latent.toRgb.length === 0 ||
        (latent.toRgb.length === channels && latent.toRgb.every(({ length }) => length === 3)),
      `3 ${perChannel}, or none`,
    ],
    ["latent.toRgbBias", latent.toRgbBias.length === 3, "3 numbers"],
    [
      "latent.upsampling",
      latent.upsampling === 1 || Object.hasOwn(graphs, "latent-upsampler"),
      "1: there is no graph latent-upsampler",
    ],
    ["denoiser.patch", patch.length === 3, "3 sizes: frames, height, width"],
    ["modelFrames", Number.isInteger(windowFrames), `a multiple of ${latent.temporalStride} and 1`],
    ["windows.overlap", windows.overlap < windowFrames, `below the ${windowFrames} latent frames of the model`],
    ["windows.leadIn", windows.leadIn < windows.overlap, `below the overlap, ${windows.overlap}`],
    ["width", width % (spatialStride * patchWidth) === 0, `a multiple of ${spatialStride * patchWidth}`],
    ["height", height % (spatialStride * patchHeight) === 0, `a multiple of ${spatialStride * patchHeight}`],
    ...(isNoiseDenoiser(denoiser) ? noiseRules(denoiser) : tokenRules(denoiser)),
  ];
}

type Rule = readonly [path: string, holds: boolean, wanted: string];

function tokenRules({ experts, topK, gate }: TokenDenoiser): readonly Rule[] {
  const choice = (experts / gate.groups) * gate.groupsKept;
  return [
    ["denoiser.gate.groups", experts % gate.groups === 0, `a divisor of ${experts} experts`],
    ["denoiser.gate.groupsKept", gate.groupsKept <= gate.groups, `at most the ${gate.groups} groups`],
    ["denoiser.topK", topK <= choice, `at most the ${choice} experts to choose from`],
  ];
}

function noiseRules({ gate: { from }, graphs }: NoiseDenoiser): readonly Rule[] {
  const falling = from.every((bound, i) => i === 0 || bound < (from[i - 1] ?? 0));
  return [
    ["denoiser.gate.from", falling && from.at(-1) === 0, "falling bounds, the last 0"],
    ["denoiser.graphs", graphs.length === from.length, `one for each of ${from.length} bounds`],
  ];
}

/** Graphs that every variant must have. */
function piecesOf(denoiser: Manifest["denoiser"]): readonly string[] {
  if (isNoiseDenoiser(denoiser)) return denoiser.graphs;
  const blocks = Array.from({ length: denoiser.layers }, (_, i) => `block.${i}`);
  return ["context", "entry", ...blocks, "head", "monolith"];
}

function refuse(path: string, value: unknown, wanted: string): never {
  const text = JSON.stringify(value)?.slice(0, 80) ?? "missing";
  throw new BundleError(MANIFEST_FILE, `${path} is ${text}, expected ${wanted}`);
}

/** The manifest in `text`. Throws BundleError naming the field, its value and what is expected. */
export function parseManifest(text: string): Manifest {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (cause) {
    throw new BundleError(MANIFEST_FILE, "is not JSON", { cause });
  }
  const format = at(parsed, "format");
  if (format !== BUNDLE_FORMAT)
    throw new BundleError(MANIFEST_FILE, `format is ${JSON.stringify(format)}, expected ${BUNDLE_FORMAT}`);
  const kind = at(parsed, "denoiser.gate.kind");
  const more = kind === "timestep" ? NOISE_FIELDS : kind === "token-topk" ? TOKEN_FIELDS : [];
  for (const [path, check, wanted] of [...FIELDS, ...more]) {
    const value = at(parsed, path);
    if (!check(value)) refuse(path, value, wanted);
  }
  for (const [path, holds, wanted] of rulesOf(parsed as Manifest)) if (!holds) refuse(path, at(parsed, path), wanted);
  return parsed as Manifest;
}
