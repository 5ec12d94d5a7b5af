// Parses what a caller asked for into a spec with every default filled in, once, at the edge. Nothing inside re-checks it.
import { randomInt } from "node:crypto";
import { MoevieError, limit, type FieldViolation, type VideoSpec } from "@moevie/contracts";
import type { JobSpec } from "@moevie/job-store";

/** What the served bundle decides: defaults, and what a spec may ask of it. */
export interface ModelDefaults {
  readonly name: string;
  readonly steps: number;
  readonly guidance: number;
  readonly sampler: string;
  /** Names of the samplers the scheduler knows. */
  readonly samplers: readonly string[];
  /** Seconds the model was trained on. */
  readonly trainedSeconds: number;
}

export interface ValidVideoSpec {
  readonly spec: JobSpec;
  /** What the caller should know but is not refused for. */
  readonly warnings: readonly string[];
}

const DEFAULT_SIZE = "1280x720";
const DEFAULT_SECONDS = 2;
const DEFAULT_FPS = 24;
/** A chosen seed stays short enough to be typed again. */
const CHOSEN_SEED_LIMIT = 2 ** 32;

/** Throws INVALID_FIELD with one violation for every wrong field: path, value, what is allowed. */
export function parseVideoSpec(raw: VideoSpec | null, model: ModelDefaults): ValidVideoSpec {
  const violations: FieldViolation[] = [];
  const refuse = (field: string, said: string, allowed: string): void => {
    violations.push({ field: `spec.${field}`, description: `is ${said}; allowed: ${allowed}` });
  };
  if (raw === null)
    throw invalid([{ field: "spec", description: "is not set; allowed: a spec with at least a prompt" }]);
  checkText("prompt", raw.prompt, true, refuse);
  checkText("negative_prompt", raw.negativePrompt, false, refuse);
  const number = (field: string, value: number | undefined, otherwise: number, check: NumberCheck): number => {
    const chosen = value ?? otherwise;
    const whole = check.whole !== true || Number.isSafeInteger(chosen);
    const above = check.above === undefined || chosen > check.above;
    if (!Number.isFinite(chosen) || !whole || !above || chosen < check.min || chosen > check.max)
      refuse(field, shown(value), check.allowed);
    return chosen;
  };
  const seedMax = Number.MAX_SAFE_INTEGER;
  const seed = number("seed", raw.seed, randomInt(CHOSEN_SEED_LIMIT), {
    min: 0,
    max: seedMax,
    whole: true,
    allowed: `a whole number from 0 to ${seedMax} (2^53 - 1)`,
  });
  const secondsMax = limit("clipSecondsMax");
  const seconds = number("seconds", raw.seconds, DEFAULT_SECONDS, {
    min: 0,
    above: 0,
    max: secondsMax,
    allowed: `more than 0, at most ${secondsMax}`,
  });
  const fps = number("fps", raw.fps, DEFAULT_FPS, {
    min: 1,
    max: limit("fpsMax"),
    whole: true,
    allowed: `a whole number from 1 to ${limit("fpsMax")}`,
  });
  const steps = number("steps", raw.steps, model.steps, {
    min: 1,
    max: limit("stepsMax"),
    whole: true,
    allowed: `a whole number from 1 to ${limit("stepsMax")}`,
  });
  const guidance = number("guidance", raw.guidance, model.guidance, {
    min: 0,
    max: limit("guidanceMax"),
    allowed: `a number from 0 to ${limit("guidanceMax")}; 1 or less runs without guidance`,
  });
  const { width, height } = parseSize(raw.size === "" ? DEFAULT_SIZE : raw.size, refuse);
  const sampler = raw.sampler === "" ? model.sampler : raw.sampler;
  if (!model.samplers.includes(sampler)) refuse("sampler", shown(raw.sampler), model.samplers.join(", "));
  if (raw.model !== "" && raw.model !== model.name)
    refuse("model", shown(raw.model), `${model.name}, or empty for the one served`);
  if (violations.length === 0 && Math.round(seconds * fps) < 1)
    refuse("seconds", shown(raw.seconds), `long enough for one frame at ${fps} fps`);
  if (violations.length > 0) throw invalid(violations);
  const warnings =
    seconds > model.trainedSeconds
      ? [`The model was trained on clips of ${model.trainedSeconds} s; ${seconds} s may drift.`]
      : [];
  const { prompt, negativePrompt } = raw;
  return {
    spec: { prompt, negativePrompt, seed, width, height, seconds, fps, steps, guidance, sampler, model: model.name },
    warnings,
  };
}

interface NumberCheck {
  readonly min: number;
  readonly max: number;
  readonly above?: number;
  readonly whole?: boolean;
  readonly allowed: string;
}
/** `said`: the value as the caller will read it. */
type Refuse = (field: string, said: string, allowed: string) => void;

function checkText(field: string, text: string, required: boolean, refuse: Refuse): void {
  const max = limit("promptCharactersMax");
  if (required && text.trim() === "") refuse(field, shown(text), `a text of 1 to ${max} characters`);
  const count = Array.from(text).length;
  if (count > max) violationOfLength(field, count, max, refuse);
  const control = Array.from(text).find((character) => isControl(character.codePointAt(0) ?? 0));
  if (control !== undefined)
    refuse(
      field,
      `text with the control character U+${(control.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0")}`,
      "no control characters but tab and line breaks",
    );
}

function violationOfLength(field: string, count: number, max: number, refuse: Refuse): void {
  refuse(field, `${count} characters long`, `at most ${max} characters`);
}

function isControl(code: number): boolean {
  const spacing = code === 0x09 || code === 0x0a || code === 0x0d;
  return (code < 0x20 && !spacing) || (code >= 0x7f && code < 0xa0);
}

function parseSize(text: string, refuse: Refuse): { width: number; height: number } {
  const [min, max, multiple] = [limit("sidePixelsMin"), limit("sidePixelsMax"), limit("sidePixelsMultiple")];
  const match = /^(\d{1,5})x(\d{1,5})$/.exec(text);
  const [width, height] = [Number(match?.[1]), Number(match?.[2])];
  const fits = (side: number): boolean => side >= min && side <= max && side % multiple === 0;
  if (match === null || !fits(width) || !fits(height))
    refuse(
      "size",
      shown(text),
      `WIDTHxHEIGHT, both multiples of ${multiple} from ${min} to ${max}, e.g. ${DEFAULT_SIZE}`,
    );
  return { width, height };
}

const SHOWN_CHARACTERS_MAX = 80;

function shown(value: unknown): string {
  if (typeof value !== "string") return String(value);
  const characters = Array.from(value);
  return characters.length > SHOWN_CHARACTERS_MAX
    ? `"${characters.slice(0, SHOWN_CHARACTERS_MAX).join("")}…"`
    : `"${value}"`;
}

function invalid(violations: readonly FieldViolation[]): MoevieError {
  const text = violations.map((violation) => `${violation.field} ${violation.description}`).join("; ");
  return new MoevieError("INVALID_FIELD", text, { violations });
}
