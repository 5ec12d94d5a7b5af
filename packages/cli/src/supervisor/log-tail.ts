// The last lines a child wrote, kept so that its end can be explained. Bounded; forwards whole lines when asked to.

const LINES_MAX = 40;
const LINE_CHARACTERS_MAX = 4000;

export class LogTail {
  readonly #lines: string[] = [];
  readonly #forward: ((line: string) => void) | undefined;
  #rest = "";

  constructor(forward?: (line: string) => void) {
    this.#forward = forward;
  }

  /** Takes text as it comes from the pipe. */
  push(text: string): void {
    const parts = (this.#rest + text).split("\n");
    this.#rest = (parts.pop() ?? "").slice(0, LINE_CHARACTERS_MAX);
    for (const part of parts) this.#keep(part);
  }

  /** The pipe closed: the unfinished line counts too. */
  end(): void {
    if (this.#rest !== "") this.#keep(this.#rest);
    this.#rest = "";
  }

  /** The newest line that says what went wrong, without stack frames; undefined when none does. */
  lastMessage(): string | undefined {
    for (const line of this.#lines.toReversed()) {
      const message = messageOf(line);
      if (message !== undefined) return message;
    }
    return undefined;
  }

  /** The newest line that is not empty, whatever it says. */
  lastLine(): string | undefined {
    return this.#lines.findLast((line) => line.trim() !== "")?.trim();
  }

  #keep(line: string): void {
    const short = line.slice(0, LINE_CHARACTERS_MAX);
    this.#lines.push(short);
    if (this.#lines.length > LINES_MAX) this.#lines.shift();
    this.#forward?.(short);
  }
}

/** Least pino level that can explain an end: warn. */
const WARN_LEVEL = 40;

function messageOf(line: string): string | undefined {
  if (line.startsWith("{")) {
    try {
      const record = JSON.parse(line) as { level?: unknown; msg?: unknown };
      const explains = typeof record.level === "number" && record.level >= WARN_LEVEL;
      return explains && typeof record.msg === "string" ? record.msg : undefined;
    } catch {
      return undefined;
    }
  }
  return /^(?:Uncaught )?\w*Error(?: \[\w+\])?: (.+)$/.exec(line)?.[1];
}
