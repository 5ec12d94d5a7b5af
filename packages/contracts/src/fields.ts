// Wrong fields, told the same way everywhere: field, value and what is allowed; and what the numbers of the public API may be. Pure.
import { MoevieError, type FieldViolation } from "./errors.ts";
import type { Quality, VideoPriority } from "./gen/messages.ts";
import { limit } from "./limits.ts";

export interface NumberRule {
  readonly min: number;
  readonly max: number;
  readonly whole?: boolean;
  /** The minimum itself is not allowed. */
  readonly minExcluded?: boolean;
  /** Follows the range when it is told. */
  readonly note?: string;
}

/** Numbers of a VideoSpec. */
export const VIDEO_NUMBERS = {
  seed: { min: 0, max: Number.MAX_SAFE_INTEGER, whole: true, note: " (2^53 - 1)" },
  seconds: { min: 0, max: limit("clipSecondsMax"), minExcluded: true },
  fps: { min: 1, max: limit("fpsMax"), whole: true },
  steps: { min: 1, max: limit("stepsMax"), whole: true },
  guidance: { min: 0, max: limit("guidanceMax"), note: "; 1 or less runs without guidance" },
  guidanceLow: { min: 0, max: limit("guidanceMax") },
  boundary: { min: 0, max: 1000 },
  shift: { min: 0, max: 100, minExcluded: true },
  frames: { min: 1, max: limit("clipSecondsMax") * limit("fpsMax"), whole: true },
} as const satisfies Record<string, NumberRule>;

/** A field's name as messages write it: guidanceLow is guidance_low, or guidance-low with another `joint`. */
export function writtenName(name: string, joint = "_"): string {
  return name.replaceAll(/[A-Z]/g, (letter) => joint + letter.toLowerCase());
}

/** Names of qualities, as bundles call their variants and people their flags, and what the public API calls them. */
export const QUALITIES = { standard: "QUALITY_STANDARD", draft: "QUALITY_DRAFT" } as const satisfies Record<
  string,
  Quality
>;
export type QualityName = keyof typeof QUALITIES;

/** The name of what a spec asks for; nothing said is standard. Undefined for what this build does not know. */
export function qualityName(quality: Quality | undefined): QualityName | undefined {
  if (quality === undefined || quality === "QUALITY_UNSPECIFIED") return "standard";
  return (Object.keys(QUALITIES) as QualityName[]).find((name) => QUALITIES[name] === quality);
}

/** Names of priorities, as people write them, and what the public API calls them. */
export const PRIORITIES = {
  high: "VIDEO_PRIORITY_HIGH",
  normal: "VIDEO_PRIORITY_NORMAL",
  low: "VIDEO_PRIORITY_LOW",
} as const satisfies Record<string, VideoPriority>;
export type PriorityName = keyof typeof PRIORITIES;

/** The name of what a request asks for; nothing said is normal. Undefined for what this build does not know. */
export function priorityName(priority: VideoPriority | undefined): PriorityName | undefined {
  if (priority === undefined || priority === "VIDEO_PRIORITY_UNSPECIFIED") return "normal";
  return (Object.keys(PRIORITIES) as PriorityName[]).find((name) => PRIORITIES[name] === priority);
}

/** deadline_seconds. */
export const DEADLINE_SECONDS: NumberRule = { min: 0, max: limit("deadlineSecondsMax"), minExcluded: true };

/** Name of a tenant, as the metadata TENANT_KEY of a call gives it. */
export function isTenant(name: string): boolean {
  return /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/.test(name);
}
export const TENANT_ALLOWED = '1 to 63 letters, digits, ".", "_" and "-", the first a letter or digit';
export const TENANT_KEY = "x-moevie-tenant";

/** page_size: an int32 on the wire, capped by the service. */
export const PAGE_SIZE: NumberRule = {
  min: 0,
  max: 2 ** 31 - 1,
  whole: true,
  note: `; 0: the default, and a page has ${limit("listPageSizeMax")} at most`,
};

/** The numbers a rule allows, as a phrase. */
export function allowedNumbers({ min, max, whole = false, minExcluded = false, note = "" }: NumberRule): string {
  return `a ${whole ? "whole " : ""}number ${minExcluded ? `above ${min}, at most` : `from ${min} to`} ${max}${note}`;
}

/** What is wrong with a number; nothing when it keeps its rule or is left out. */
export function wrongNumber(field: string, value: unknown, rule: NumberRule): FieldViolation[] {
  if (value === undefined || value === null) return [];
  const { min, max, whole = false, minExcluded = false } = rule;
  const fits = whole ? Number.isSafeInteger : Number.isFinite;
  if (fits(value) && Number(value) <= max && (minExcluded ? Number(value) > min : Number(value) >= min)) return [];
  return [violation(field, value, allowedNumbers(rule))];
}

const SHOWN_CHARACTERS_MAX = 80;

/** A value as the caller will read it: texts quoted and cut short. */
export function shownValue(value: unknown): string {
  if (typeof value !== "string") return String(value);
  const characters = Array.from(value);
  return characters.length > SHOWN_CHARACTERS_MAX
    ? `"${characters.slice(0, SHOWN_CHARACTERS_MAX).join("")}…"`
    : `"${value}"`;
}

export function violation(field: string, value: unknown, allowed: string): FieldViolation {
  return { field, description: `is ${shownValue(value)}; allowed: ${allowed}` };
}

/** Throws INVALID_FIELD that names every wrong field, if there is one. */
export function checkFields(violations: readonly FieldViolation[]): void {
  if (violations.length > 0) throw invalidFields(violations);
}

export function invalidFields(violations: readonly FieldViolation[]): MoevieError {
  const text = violations.map(({ field, description }) => `${field} ${description}`).join("; ");
  return new MoevieError("INVALID_FIELD", text, { violations });
}

/** What a file of the reference folder may be called, as a phrase. */
export const REFERENCE_NAME = "letters, digits, _ and -, then .safetensors, up to 100 characters";

export function isReferenceName(name: string): boolean {
  return /^[A-Za-z0-9_-]{1,88}\.safetensors$/.test(name);
}
