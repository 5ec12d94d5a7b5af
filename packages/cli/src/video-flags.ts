// PROMPT and the flags that describe a clip: parsed once, every problem named together. The server checks again what it alone knows.
import { limit, type FieldViolation, type VideoSpec } from "@moevie/contracts";
import { textFlag, type RawFlags } from "./command.ts";
import { UsageError, type UsageProblem } from "./failure.ts";

const SEED_MAX = Number.MAX_SAFE_INTEGER;
const SAMPLERS = ["unipc", "euler"] as const;

interface NumberRule {
  readonly min: number;
  readonly max: number;
  readonly integer: boolean;
  /** The minimum itself is not allowed. */
  readonly exclusiveMin?: boolean;
}

/** Reads one number; a wrong one is added to `problems`. */
function readNumber(
  flags: RawFlags,
  name: string,
  flag: string,
  rule: NumberRule,
  problems: UsageProblem[],
): number | undefined {
  const text = textFlag(flags, name);
  if (text === undefined) return undefined;
  const value = /^[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?$/i.test(text.trim()) ? Number(text) : Number.NaN;
  const low = rule.exclusiveMin === true ? value > rule.min : value >= rule.min;
  if (low && value <= rule.max && (!rule.integer || Number.isInteger(value))) return value;
  const kind = rule.integer ? "a whole number" : "a number";
  problems.push({
    flag,
    value: text,
    allowed:
      rule.exclusiveMin === true
        ? `${kind} above ${rule.min}, at most ${rule.max}`
        : `${kind} from ${rule.min} to ${rule.max}`,
  });
  return undefined;
}

function checkPromptText(flag: string, text: string, emptyAllowed: boolean, problems: UsageProblem[]): void {
  const charactersMax = limit("promptCharactersMax");
  const allowed = `${emptyAllowed ? "up to" : "1 to"} ${charactersMax} characters, no control characters but tab and line break`;
  const characters = Array.from(text).length;
  const empty = !emptyAllowed && text.trim() === "";
  const control = /\p{Cc}/u.test(text.replaceAll(/[\t\r\n]/g, ""));
  if (empty || characters > charactersMax || control) problems.push({ flag, value: text, allowed });
}

function checkSize(text: string | undefined, problems: UsageProblem[]): string {
  if (text === undefined) return "";
  const [min, max, multiple] = [limit("sidePixelsMin"), limit("sidePixelsMax"), limit("sidePixelsMultiple")];
  const match = /^(\d{1,6})x(\d{1,6})$/i.exec(text);
  const sides = match === null ? [] : [Number(match[1]), Number(match[2])];
  if (sides.length === 2 && sides.every((side) => side >= min && side <= max && side % multiple === 0))
    return sides.join("x");
  problems.push({
    flag: "--size",
    value: text,
    allowed: `WIDTHxHEIGHT, both from ${min} to ${max} and multiples of ${multiple}, e.g. 1280x720`,
  });
  return "";
}

function checkSampler(text: string | undefined, problems: UsageProblem[]): string {
  if (text === undefined || SAMPLERS.some((name) => name === text)) return text ?? "";
  problems.push({ flag: "--sampler", value: text, allowed: SAMPLERS.join(", ") });
  return "";
}

function withoutAbsent<T extends object>(values: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]?: Exclude<T[K], undefined>;
  };
}

/** The spec that PROMPT and flags ask for. Throws UsageError naming every wrong flag. */
export function parseVideoSpec(prompt: string, flags: RawFlags): VideoSpec {
  const problems: UsageProblem[] = [];
  const negativePrompt = textFlag(flags, "negative") ?? "";
  checkPromptText("PROMPT", prompt, false, problems);
  checkPromptText("--negative", negativePrompt, true, problems);
  const size = checkSize(textFlag(flags, "size"), problems);
  const sampler = checkSampler(textFlag(flags, "sampler"), problems);
  const seed = readNumber(flags, "seed", "--seed", { min: 0, max: SEED_MAX, integer: true }, problems);
  const seconds = readNumber(
    flags,
    "seconds",
    "--seconds",
    { min: 0, max: limit("clipSecondsMax"), integer: false, exclusiveMin: true },
    problems,
  );
  const fps = readNumber(flags, "fps", "--fps", { min: 1, max: limit("fpsMax"), integer: true }, problems);
  const steps = readNumber(flags, "steps", "--steps", { min: 1, max: limit("stepsMax"), integer: true }, problems);
  const guidance = readNumber(
    flags,
    "guidance",
    "--guidance",
    { min: 0, max: limit("guidanceMax"), integer: false },
    problems,
  );
  if (problems.length > 0) throw new UsageError(problems);
  return {
    prompt,
    negativePrompt,
    size,
    sampler,
    model: "",
    ...withoutAbsent({ seed, seconds, fps, steps, guidance }),
  };
}

/** A whole-number flag with a default. Throws UsageError. */
export function parseWholeNumber(
  flags: RawFlags,
  name: string,
  flag: string,
  range: { readonly min: number; readonly max: number; readonly default: number },
): number {
  const problems: UsageProblem[] = [];
  const value = readNumber(flags, name, flag, { ...range, integer: true }, problems);
  if (problems.length > 0) throw new UsageError(problems);
  return value ?? range.default;
}

/** The flag a person wrote for a field the server refused; unknown fields keep their own name. */
export function flagOfField(violation: FieldViolation): string {
  const field = violation.field.replace(/^spec\./, "");
  const flags: Readonly<Record<string, string>> = {
    prompt: "PROMPT",
    negative_prompt: "--negative",
    name: "VIDEO",
    page_token: "--page-token",
    page_size: "--page-size",
    request_id: "--request-id",
  };
  return (
    flags[field] ??
    (["seed", "size", "seconds", "fps", "steps", "guidance", "sampler", "model"].includes(field)
      ? `--${field}`
      : violation.field)
  );
}
