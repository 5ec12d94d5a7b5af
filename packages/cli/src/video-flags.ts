// PROMPT and the flags that describe a clip: parsed once, every problem named together. The server checks again what it alone knows.
import {
  DEADLINE_SECONDS,
  PRIORITIES,
  QUALITIES,
  VIDEO_NUMBERS,
  allowedNumbers,
  limit,
  writtenName,
  wrongNumber,
  type FieldViolation,
  type NumberRule,
  type PriorityName,
  type QualityName,
  type VideoSpec,
} from "@moevie/contracts";
import { textFlag, type RawFlags } from "./command.ts";
import { UsageError, type UsageProblem } from "./failure.ts";

const SAMPLERS = ["unipc", "dpmpp", "euler"];
const GRIDS = ["diffusers", "reference", "flow-match-euler"];

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
  if (wrongNumber(flag, value, rule).length === 0) return value;
  problems.push({ flag, value: text, allowed: allowedNumbers(rule) });
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

/** A name out of `allowed`, or nothing said; another is added to `problems`. */
function checkName(
  flag: string,
  text: string | undefined,
  allowed: readonly string[],
  problems: UsageProblem[],
): string {
  if (text === undefined || allowed.includes(text)) return text ?? "";
  problems.push({ flag, value: text, allowed: allowed.join(", ") });
  return "";
}

/** The spec that PROMPT and flags ask for. Throws UsageError naming every wrong flag. */
export function parseVideoSpec(prompt: string, flags: RawFlags): VideoSpec {
  const problems: UsageProblem[] = [];
  const negativePrompt = textFlag(flags, "negative") ?? "";
  checkPromptText("PROMPT", prompt, false, problems);
  checkPromptText("--negative", negativePrompt, true, problems);
  const size = checkSize(textFlag(flags, "size"), problems);
  const sampler = checkName("--sampler", textFlag(flags, "sampler"), SAMPLERS, problems);
  const quality = checkName("--quality", textFlag(flags, "quality"), Object.keys(QUALITIES), problems);
  const grid = checkName("--grid", textFlag(flags, "grid"), GRIDS, problems);
  const numbers: Partial<Record<keyof typeof VIDEO_NUMBERS, number>> = {};
  for (const name of Object.keys(VIDEO_NUMBERS) as (keyof typeof VIDEO_NUMBERS)[]) {
    const value = readNumber(flags, name, `--${writtenName(name, "-")}`, VIDEO_NUMBERS[name], problems);
    if (value !== undefined) numbers[name] = value;
  }
  if (problems.length > 0) throw new UsageError(problems);
  return {
    prompt,
    negativePrompt,
    size,
    sampler,
    grid,
    model: "",
    initialNoise: "",
    saveLatents: "",
    saveFrames: "",
    quality: quality === "" ? "QUALITY_UNSPECIFIED" : QUALITIES[quality as QualityName],
    ...(flags["colorCorrection"] === false ? { colorCorrection: false } : {}),
    ...(flags["exact"] === true ? { exact: true } : {}),
    ...numbers,
  };
}

/** When the video is to be made. Throws UsageError. */
export function parseTurn(flags: RawFlags): { readonly priority?: PriorityName; readonly deadlineSeconds?: number } {
  const problems: UsageProblem[] = [];
  const priority = checkName("--priority", textFlag(flags, "priority"), Object.keys(PRIORITIES), problems);
  const deadlineSeconds = readNumber(flags, "deadline", "--deadline", DEADLINE_SECONDS, problems);
  if (problems.length > 0) throw new UsageError(problems);
  return {
    ...(priority === "" ? {} : { priority: priority as PriorityName }),
    ...(deadlineSeconds === undefined ? {} : { deadlineSeconds }),
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
  const value = readNumber(flags, name, flag, { ...range, whole: true }, problems);
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
  const plain = field === "size" || field === "model" || field === "sampler" || field === "quality" || field === "grid";
  const number = Object.keys(VIDEO_NUMBERS).find((name) => writtenName(name) === field);
  return (
    flags[field] ?? (plain ? `--${field}` : number === undefined ? violation.field : `--${writtenName(number, "-")}`)
  );
}
