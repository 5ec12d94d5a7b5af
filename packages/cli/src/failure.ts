// How a command ends badly: exit code and the lines a person reads. Holds no output and no process.exit.

/** The contract's exit codes. */
export const EXIT = { ok: 0, failed: 1, usage: 2, interrupted: 130 } as const;
export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

/** One wrong value of a flag or argument. */
export interface UsageProblem {
  /** As the user writes it: `--size` or `PROMPT`. */
  readonly flag: string;
  readonly value: string;
  /** What is allowed, as a phrase. */
  readonly allowed: string;
}

/** Longest part of a wrong value that is shown back. */
const VALUE_CHARACTERS_MAX = 60;

/** A value as shown in a message: quoted, cut short, control characters made visible. */
function shownValue(value: string): string {
  const head = Array.from(value.slice(0, VALUE_CHARACTERS_MAX * 2))
    .slice(0, VALUE_CHARACTERS_MAX)
    .join("");
  const quoted = JSON.stringify(head).replace(
    /[\u007f-\u009f\u2028\u2029]/gu,
    (c) => `\\u${c.codePointAt(0)?.toString(16).padStart(4, "0")}`,
  );
  return head.length < value.length ? `${quoted}… (${Array.from(value).length} characters)` : quoted;
}

/** The command was called wrongly: exit code 2. */
export class UsageError extends Error {
  override readonly name = "UsageError";
  readonly problems: readonly UsageProblem[];

  constructor(problems: readonly UsageProblem[]) {
    super(problems.map((p) => `${p.flag} is ${shownValue(p.value)}; allowed: ${p.allowed}`).join("\n"));
    this.problems = problems;
  }
}

/** The command was right but could not be done: exit code 1. `reason` is of the catalogue where one fits. */
export class CommandError extends Error {
  override readonly name = "CommandError";
  readonly reason: string;

  constructor(message: string, reason = "FAILED", options?: ErrorOptions) {
    super(message, options);
    this.reason = reason;
  }
}

/** A signal or Ctrl-C ended the command: exit code 130. */
export class InterruptedError extends Error {
  override readonly name = "InterruptedError";

  constructor(message = "interrupted") {
    super(message);
  }
}
