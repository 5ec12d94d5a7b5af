// What every command gets and gives. A command prints nothing but through its context and never exits the process.
import type { Clock } from "./clock.ts";
import type { CliConfig } from "./config.ts";
import type { Interruption } from "./interruption.ts";
import type { Output } from "./output.ts";

export interface CommandContext {
  readonly config: CliConfig;
  readonly clock: Clock;
  readonly output: Output;
  readonly interruption: Interruption;
  /** One object on stdout instead of lines. */
  readonly json: boolean;
}

/** What a command found out: the object of --json, and the same for people. */
export interface CommandResult {
  readonly json: Readonly<Record<string, unknown>>;
  readonly lines: readonly string[];
  /** Set when the command did its work and the answer is no: doctor, bench. */
  readonly failed?: boolean;
}

/** Raw flags as written, by their long name in camel case. */
export type RawFlags = Readonly<Record<string, string | boolean | undefined>>;

/** A flag's text, or undefined when it was not given. */
export function textFlag(flags: RawFlags, name: string): string | undefined {
  const value = flags[name];
  return typeof value === "string" ? value : undefined;
}
