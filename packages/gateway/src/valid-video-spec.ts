// Parses what a caller asked for into a spec with every default filled in, once, at the edge. Nothing inside re-checks it.
import { randomInt } from "node:crypto";
import {
  QUALITIES,
  REFERENCE_NAME,
  isReferenceName,
  VIDEO_NUMBERS,
  checkFields,
  invalidFields,
  limit,
  qualityName,
  shownValue,
  writtenName,
  wrongNumber,
  type FieldViolation,
  type QualityName,
  type VideoSpec,
} from "@moevie/contracts";
import { EXPLICIT_GRID } from "@moevie/diffusion";
import type { JobSpec } from "@moevie/job-store";

interface VariantDefaults {
  readonly steps: number;
  readonly guidance: number;
  readonly guidanceLow?: number;
  /** It has a noise schedule of its own for its number of steps. */
  readonly sigmas?: readonly number[];
}

/** What the served bundle decides: defaults, and what a spec may ask of it. */
export interface ModelDefaults {
  readonly name: string;
  readonly variants: { readonly [name in QualityName]?: VariantDefaults } & { readonly standard: VariantDefaults };
  readonly sampler: string;
  /** Names of the samplers the scheduler knows. */
  readonly samplers: readonly string[];
  readonly shift: number;
  readonly grid: string;
  readonly grids: readonly string[];
  /** Of a model of two noise levels: the timestep at which they part. */
  readonly boundary: number | undefined;
  /** Frames a second the model makes, in steps of so many after the first. */
  readonly frameRate: number;
  readonly temporalStride: number;
  /** What is asked not to show when nothing is. */
  readonly negativePrompt: string;
  readonly draws: "trained" | "asked";
  /** Requests may name tensors in the reference folder. */
  readonly referenceAllowed: boolean;
  /** What the model was trained on. */
  readonly trained: { readonly seconds: number; readonly width: number; readonly height: number };
}

export interface ValidVideoSpec {
  readonly spec: JobSpec;
  /** What the caller should know but is not refused for. */
  readonly warnings: readonly string[];
}

const DEFAULT_SIZE = "1280x720";
const DEFAULT_SECONDS = 2;
const DEFAULT_FPS = 24;
/** Cropping less of the model's picture than this leaves is worth a word. */
const KEPT_PERCENT_WARNED = 95;
/** A chosen seed stays short enough to be typed again. */
const CHOSEN_SEED_LIMIT = 2 ** 32;

/** Throws INVALID_FIELD with one violation for every wrong field: path, value, what is allowed. */
export function parseVideoSpec(raw: VideoSpec | null, model: ModelDefaults): ValidVideoSpec {
  const violations: FieldViolation[] = [];
  const refuse = (field: string, said: string, allowed: string): void => {
    violations.push({ field: `spec.${field}`, description: `is ${said}; allowed: ${allowed}` });
  };
  if (raw === null)
    throw invalidFields([{ field: "spec", description: "is not set; allowed: a spec with at least a prompt" }]);
  checkText("prompt", raw.prompt, true, refuse);
  checkText("negative_prompt", raw.negativePrompt, false, refuse);
  const { quality, variant } = parseQuality(raw, model, refuse);
  const length = parseLength(raw, model, refuse);
  const numbers = {
    seed: raw.seed ?? randomInt(CHOSEN_SEED_LIMIT),
    seconds: length.seconds,
    fps: length.fps,
    steps: raw.steps ?? variant.steps,
    guidance: raw.guidance ?? variant.guidance,
    ...parseLevels(raw, model, variant, refuse),
    shift: raw.shift ?? model.shift,
  };
  const told: Record<string, number | undefined> = { ...numbers, frames: raw.frames };
  for (const [name, rule] of Object.entries(VIDEO_NUMBERS))
    violations.push(...wrongNumber(`spec.${writtenName(name)}`, told[name], rule));
  const { seconds, fps } = numbers;
  const { width, height } = parseSize(raw.size === "" ? DEFAULT_SIZE : raw.size, refuse);
  const sampler = raw.sampler === "" ? model.sampler : raw.sampler;
  if (!model.samplers.includes(sampler)) refuse("sampler", shownValue(raw.sampler), model.samplers.join(", "));
  const grid = parseGrid(raw, model, variant, refuse);
  const reference = parseReference(raw, model, refuse);
  if (raw.model !== "" && raw.model !== model.name)
    refuse("model", shownValue(raw.model), `${model.name}, or empty for the one served`);
  if (violations.length === 0 && Math.round(seconds * fps) < 1)
    refuse("seconds", shownValue(raw.seconds), `long enough for one frame at ${fps} fps`);
  checkFields(violations);
  const { prompt } = raw;
  const negativePrompt = raw.negativePrompt === "" ? model.negativePrompt : raw.negativePrompt;
  return {
    spec: {
      prompt,
      negativePrompt,
      quality,
      ...numbers,
      width,
      height,
      sampler,
      grid,
      colorCorrection: raw.colorCorrection ?? true,
      ...reference,
      model: model.name,
    },
    warnings: [...length.warnings, ...warningsOf({ width, height, seconds }, model)],
  };
}

/**
 * Seconds, or so many of the model's frames: rounded down to what it can make, unless exactly so many are asked for, and each shown once
 * unless another rate is asked for.
 */
function parseLength(
  raw: VideoSpec,
  { frameRate, temporalStride }: ModelDefaults,
  refuse: Refuse,
): { seconds: number; fps: number; warnings: readonly string[] } {
  const { frames } = raw;
  if (frames === undefined)
    return { seconds: raw.seconds ?? DEFAULT_SECONDS, fps: raw.fps ?? DEFAULT_FPS, warnings: [] };
  if (raw.seconds !== undefined)
    refuse("frames", String(frames), "nothing beside seconds: either says how long the clip is");
  // What is no number of frames is told by its own rule.
  if (!(frames >= 1)) return { seconds: DEFAULT_SECONDS, fps: raw.fps ?? frameRate, warnings: [] };
  const made = Math.floor((frames - 1) / temporalStride) * temporalStride + 1;
  const length = { seconds: made / frameRate, fps: raw.fps ?? frameRate };
  if (made === frames) return { ...length, warnings: [] };
  if (raw.exact === true)
    refuse("frames", String(frames), `${temporalStride}n+1 when exact, e.g. ${made} or ${made + temporalStride}`);
  const warning = `The model makes ${temporalStride}n+1 frames; ${made} are made where ${frames} were asked for.`;
  return { ...length, warnings: [warning] };
}

/** Names of files in the reference folder, where the operator allows them. */
function parseReference(
  raw: VideoSpec,
  { referenceAllowed }: ModelDefaults,
  refuse: Refuse,
): Pick<JobSpec, "initialNoise" | "saveLatents" | "saveFrames"> {
  const names: { initialNoise?: string; saveLatents?: string; saveFrames?: string } = {};
  for (const field of ["initialNoise", "saveLatents", "saveFrames"] as const) {
    const name = raw[field];
    if (name === "") continue;
    if (!referenceAllowed)
      refuse(writtenName(field), shownValue(name), "nothing: the operator has named no reference folder");
    else if (!isReferenceName(name)) refuse(writtenName(field), shownValue(name), REFERENCE_NAME);
    names[field] = name;
  }
  return names;
}

/** A grid that a number of steps decides, or, for as many steps as the variant is meant for, its own. */
function parseGrid(raw: VideoSpec, model: ModelDefaults, variant: VariantDefaults, refuse: Refuse): string {
  const own = variant.sigmas !== undefined && (raw.steps ?? variant.steps) === variant.steps;
  const grids = own ? [EXPLICIT_GRID, ...model.grids] : model.grids;
  const grid = raw.grid === "" ? (own ? EXPLICIT_GRID : model.grid) : raw.grid;
  if (!grids.includes(grid)) refuse("grid", shownValue(raw.grid), grids.join(", "));
  return grid;
}

/** What only models of two noise levels have; asked of another it is refused. */
function parseLevels(
  raw: VideoSpec,
  { boundary }: ModelDefaults,
  variant: VariantDefaults,
  refuse: Refuse,
): { guidanceLow?: number; boundary?: number } {
  if (boundary !== undefined)
    return {
      guidanceLow: raw.guidanceLow ?? variant.guidanceLow ?? variant.guidance,
      boundary: raw.boundary ?? boundary,
    };
  for (const name of ["guidanceLow", "boundary"] as const)
    if (raw[name] !== undefined)
      refuse(writtenName(name), String(raw[name]), "nothing: this model has one noise level");
  return {};
}

/** The quality asked for, and what the model has for it. A model may be without one of them, never without standard. */
function parseQuality(
  raw: VideoSpec,
  model: ModelDefaults,
  refuse: Refuse,
): { quality: QualityName; variant: VariantDefaults } {
  const quality = qualityName(raw.quality);
  const variant = quality === undefined ? undefined : model.variants[quality];
  if (quality !== undefined && variant !== undefined) return { quality, variant };
  const known = (Object.keys(QUALITIES) as QualityName[]).filter((name) => model.variants[name] !== undefined);
  refuse("quality", shownValue(raw.quality), known.map((name) => QUALITIES[name]).join(", "));
  return { quality: "standard", variant: model.variants.standard };
}

/** What is beyond what the model was trained on. */
function warningsOf(asked: ModelDefaults["trained"], { trained, draws }: ModelDefaults): string[] {
  const warnings: string[] = [];
  if (asked.seconds > trained.seconds)
    warnings.push(`The model was trained on clips of ${trained.seconds} s; ${asked.seconds} s may drift.`);
  const size = `The model was trained on pictures of ${trained.width}x${trained.height}`;
  if (draws === "asked") {
    if (asked.width * asked.height > trained.width * trained.height)
      warnings.push(`${size}; ${asked.width}x${asked.height} is larger and may repeat itself.`);
    return warnings;
  }
  const kept = (asked.width * trained.height) / (asked.height * trained.width);
  const share = Math.round(100 * Math.min(kept, 1 / kept));
  if (share < KEPT_PERCENT_WARNED)
    warnings.push(`${size}; ${asked.width}x${asked.height} shows the middle ${share} % of them.`);
  return warnings;
}

/** `said`: the value as the caller will read it. */
type Refuse = (field: string, said: string, allowed: string) => void;

function checkText(field: string, text: string, required: boolean, refuse: Refuse): void {
  const max = limit("promptCharactersMax");
  if (required && text.trim() === "") refuse(field, shownValue(text), `a text of 1 to ${max} characters`);
  const count = Array.from(text).length;
  if (count > max) refuse(field, `${count} characters long`, `at most ${max} characters`);
  const code = /\p{Cc}/u.exec(text.replaceAll(/[\t\r\n]/g, ""))?.[0].charCodeAt(0);
  if (code !== undefined) {
    const shown = `U+${code.toString(16).toUpperCase().padStart(4, "0")}`;
    refuse(field, `text with the control character ${shown}`, "no control characters but tab and line breaks");
  }
}

function parseSize(text: string, refuse: Refuse): { width: number; height: number } {
  const [min, max, multiple] = [limit("sidePixelsMin"), limit("sidePixelsMax"), limit("sidePixelsMultiple")];
  const match = /^(\d{1,5})x(\d{1,5})$/.exec(text);
  const [width, height] = [Number(match?.[1]), Number(match?.[2])];
  const fits = (side: number): boolean => side >= min && side <= max && side % multiple === 0;
  if (match === null || !fits(width) || !fits(height))
    refuse(
      "size",
      shownValue(text),
      `WIDTHxHEIGHT, both multiples of ${multiple} from ${min} to ${max}, e.g. ${DEFAULT_SIZE}`,
    );
  return { width, height };
}
