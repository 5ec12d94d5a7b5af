// Any thrown value as exit code, lines for people and the object of --json. The one place that decides; never shows a stack.
import { CommandError, EXIT, InterruptedError, UsageError, type ExitCode } from "./failure.ts";
import { flagOfField } from "./video-flags.ts";
import { MoevieError } from "@moevie/contracts";

export interface FailureReport {
  readonly exitCode: ExitCode;
  readonly lines: readonly string[];
  readonly json: { readonly error: Readonly<Record<string, unknown>> };
}

function report(
  exitCode: ExitCode,
  reason: string,
  message: string,
  more: Readonly<Record<string, unknown>> = {},
): FailureReport {
  return {
    exitCode,
    lines: message.split("\n").map((line) => `moevie: ${line}`),
    json: { error: { reason, message, ...more } },
  };
}

/** What the operating system refused, in words. */
const SYSTEM_CODES: Readonly<Record<string, string>> = {
  ENOSPC: "no space left on the disk",
  EDQUOT: "the disk quota is used up",
  EACCES: "permission denied",
  EPERM: "not permitted",
  EROFS: "the file system is read-only",
  ENOENT: "there is no such file or folder",
  ENOTDIR: "a part of the path is not a folder",
  EEXIST: "it exists already",
  EMFILE: "too many open files",
};

function systemMessage(error: NodeJS.ErrnoException): string | undefined {
  const words = error.code === undefined ? undefined : SYSTEM_CODES[error.code];
  if (words === undefined) return undefined;
  return error.path === undefined ? words : `${error.path}: ${words}`;
}

function refused(error: MoevieError): FailureReport {
  if (error.reason === "CANCELLED") return report(EXIT.failed, error.reason, error.message);
  if (error.reason !== "INVALID_FIELD" || error.violations.length === 0)
    return report(EXIT.failed, error.reason, error.message);
  const violations = error.violations.map((violation) => ({
    flag: flagOfField(violation),
    // The flag has the qualities' own names.
    problem: violation.description.replaceAll(/QUALITY_([A-Z]+)/g, (_, name: string) => name.toLowerCase()),
  }));
  return report(EXIT.usage, error.reason, violations.map(({ flag, problem }) => `${flag} ${problem}`).join("\n"), {
    violations,
  });
}

/** Explains a failure. */
export function explainFailure(thrown: unknown): FailureReport {
  if (thrown instanceof UsageError) return report(EXIT.usage, "USAGE", thrown.message, { problems: thrown.problems });
  if (thrown instanceof InterruptedError) return report(EXIT.interrupted, "INTERRUPTED", thrown.message);
  if (thrown instanceof CommandError) return report(EXIT.failed, thrown.reason, thrown.message);
  if (thrown instanceof MoevieError) return refused(thrown);
  if (thrown instanceof Error && thrown.name === "BundleError")
    return report(EXIT.failed, "BUNDLE_CORRUPT", thrown.message);
  const system = thrown instanceof Error ? systemMessage(thrown) : undefined;
  if (system !== undefined) return report(EXIT.failed, "SYSTEM", system);
  return report(
    EXIT.failed,
    "INTERNAL",
    `something unexpected went wrong: ${thrown instanceof Error ? (thrown.message.split("\n")[0] ?? "") : String(thrown)}`,
  );
}
