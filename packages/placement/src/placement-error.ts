// What is wrong with a placement, with loads or with the sizes of a plan, and the checks that find it. Pure.

const SHOWN_CHARACTERS_MAX = 80;

/** A value that cannot be used. `field` names its place. */
export class PlacementError extends Error {
  readonly field: string;
  constructor(field: string, message: string) {
    super(`${field}: ${message}`);
    this.name = "PlacementError";
    this.field = field;
  }
}

/** `value` as a message may show it. */
function shown(value: unknown): string {
  return JSON.stringify(value)?.slice(0, SHOWN_CHARACTERS_MAX) ?? "missing";
}

export function asObject(field: string, value: unknown): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new PlacementError(field, `is ${shown(value)}, must be an object`);
  }
  return value as Record<string, unknown>;
}

export function asArray(field: string, value: unknown, maximum: number): unknown[] {
  if (!Array.isArray(value)) throw new PlacementError(field, `is ${shown(value)}, must be a list`);
  if (value.length > maximum) {
    throw new PlacementError(field, `has ${value.length} entries, must have at most ${maximum}`);
  }
  return value;
}

export function asInteger(field: string, value: unknown, minimum: number, maximum: number): number {
  if (typeof value !== "number" || !Number.isInteger(value) || value < minimum || value > maximum) {
    throw new PlacementError(field, `is ${shown(value)}, must be a whole number from ${minimum} to ${maximum}`);
  }
  return value;
}

export function asNumber(field: string, value: unknown, minimum: number, maximum: number): number {
  // Not a number and infinities have no JSON: they would be shown as null.
  if (typeof value !== "number" || !(value >= minimum && value <= maximum)) {
    const text = typeof value === "number" ? String(value) : shown(value);
    throw new PlacementError(field, `is ${text}, must be a number from ${minimum} to ${maximum}`);
  }
  return value;
}
