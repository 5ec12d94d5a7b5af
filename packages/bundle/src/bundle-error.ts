// The one error of this package. The message names the file or field and what is expected; it holds no more of the machine's
// layout than the file's name, so that it may be shown to whoever started the process.

export class BundleError extends Error {
  readonly reason = "BUNDLE_CORRUPT";
  /** File or manifest field the error is about. */
  readonly subject: string;

  constructor(subject: string, what: string, options?: ErrorOptions) {
    super(`bundle: ${subject}: ${what}`, options);
    this.name = "BundleError";
    this.subject = subject;
  }
}

/** What a failed read of `subject` throws: a BundleError with the system's code and no path of this machine. */
export function unreadable(subject: string): (cause: unknown) => never {
  return (cause) => {
    const code = cause instanceof Error && "code" in cause ? String(cause.code) : "unknown";
    throw new BundleError(subject, code === "ENOENT" ? "is missing" : `cannot be read (${code})`, { cause });
  };
}
