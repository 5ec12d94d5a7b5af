// Typed look-ups in a model's JSON configuration; every failure names file, key, value and what is allowed. No defaults.
import { readFile } from "node:fs/promises";

/** Largest count: tables and lists are made of this size before a weight has been seen. */
const COUNT_MAX = 65_536;

export class ConfigFileError extends Error {
  constructor(file: string, what: string) {
    super(`${file}: ${what}`);
    this.name = "ConfigFileError";
  }
}

/** One JSON object and the name to blame. */
export class ConfigFile {
  readonly file: string;
  readonly #values: Readonly<Record<string, unknown>>;

  constructor(file: string, values: Readonly<Record<string, unknown>>) {
    this.file = file;
    this.#values = values;
  }

  #fail(key: string, wanted: string): never {
    throw new ConfigFileError(
      this.file,
      `${key} is ${JSON.stringify(this.#values[key]) ?? "missing"}, expected ${wanted}`,
    );
  }

  has(key: string): boolean {
    return this.#values[key] !== undefined;
  }

  /** A key outside `known` says something about the model that nothing here would heed; keys that begin with `notes` do not. */
  expectOnly(known: readonly string[], notes?: string): void {
    const other = Object.keys(this.#values).find(
      (key) => !known.includes(key) && !(notes !== undefined && key.startsWith(notes)),
    );
    if (other !== undefined) this.#fail(other, `only the keys ${known.join(", ")}`);
  }

  /** What has one allowed value in this version; absent means that value. */
  expectValue(key: string, allowed: boolean | number | string | null): void {
    if (this.has(key) && this.#values[key] !== allowed) this.#fail(key, JSON.stringify(allowed));
  }

  /** Throws for `key` unless `holds`: for rules between values. */
  expect(key: string, holds: boolean, wanted: string): void {
    if (!holds) this.#fail(key, wanted);
  }

  number(key: string): number {
    const value = this.#values[key];
    return typeof value === "number" && Number.isFinite(value) ? value : this.#fail(key, "a number");
  }

  /** A whole number from one up. */
  count(key: string): number {
    return this.countTo(key, COUNT_MAX);
  }

  /** A whole number from one to `most`. */
  countTo(key: string, most: number): number {
    const value = this.#values[key];
    return Number.isSafeInteger(value) && (value as number) >= 1 && (value as number) <= most
      ? (value as number)
      : this.#fail(key, `a whole number from 1 to ${most}`);
  }

  /** A whole number from zero up. */
  whole(key: string): number {
    return this.#values[key] === 0 ? 0 : this.count(key);
  }

  text(key: string): string {
    const value = this.#values[key];
    return typeof value === "string" && value !== "" ? value : this.#fail(key, "a string");
  }

  flag(key: string): boolean {
    const value = this.#values[key];
    return typeof value === "boolean" ? value : this.#fail(key, "true or false");
  }

  oneOf<const T extends string>(key: string, allowed: readonly T[]): T {
    const value = this.#values[key];
    return allowed.find((name) => name === value) ?? this.#fail(key, `one of ${allowed.join(", ")}`);
  }

  /** Whether `key` names a part of a pipeline: a library and a class, both said. */
  hasPair(key: string): boolean {
    const value = this.#values[key];
    return Array.isArray(value) && value.some((name) => name !== null);
  }

  /** The class of a part of a pipeline, which stands behind its library. */
  pair(key: string, classes: readonly string[]): string {
    const value = this.#values[key];
    const found = Array.isArray(value) && value.length === 2 && classes.find((name) => name === value[1]);
    return found || this.#fail(key, `a library and ${classes.join(" or ")}`);
  }

  numbers(key: string, length?: number): readonly number[] {
    const value = this.#values[key];
    const good =
      Array.isArray(value) && value.every(Number.isFinite) && (length === undefined || value.length === length);
    return good ? (value as number[]) : this.#fail(key, length === undefined ? "numbers" : `${length} numbers`);
  }

  flags(key: string, length: number): readonly boolean[] {
    const value = this.#values[key];
    const good = Array.isArray(value) && value.length === length && value.every((flag) => typeof flag === "boolean");
    return good ? (value as boolean[]) : this.#fail(key, `${length} of true or false`);
  }

  rows(key: string, rows: number, columns: number): readonly (readonly number[])[] {
    const value = this.#values[key];
    const good =
      Array.isArray(value) &&
      value.length === rows &&
      value.every((row) => Array.isArray(row) && row.length === columns && row.every(Number.isFinite));
    return good ? (value as number[][]) : this.#fail(key, `${rows} rows of ${columns} numbers`);
  }

  object(key: string): ConfigFile {
    const value = this.#values[key];
    if (typeof value !== "object" || value === null || Array.isArray(value)) this.#fail(key, "an object");
    return new ConfigFile(`${this.file}: ${key}`, value as Record<string, unknown>);
  }
}

/** Reads a JSON object. Throws ConfigFileError when the file is missing or no object. */
export async function readConfigFile(file: string): Promise<ConfigFile> {
  let parsed: unknown;
  try {
    parsed = JSON.parse(await readFile(file, "utf8"));
  } catch (cause) {
    throw new ConfigFileError(
      file,
      (cause as NodeJS.ErrnoException).code === "ENOENT" ? "is missing" : `is not JSON (${String(cause)})`,
    );
  }
  if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed))
    throw new ConfigFileError(file, "is not a JSON object");
  return new ConfigFile(file, parsed as Record<string, unknown>);
}
