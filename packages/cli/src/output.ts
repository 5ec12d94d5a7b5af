// Everything the CLI prints. Results go to stdout, progress and errors to stderr; a reader that went away is no failure.

/** A terminal's width when it does not say. */
const COLUMNS_DEFAULT = 80;

export interface Output {
  /** Progress may redraw its line. */
  readonly interactive: boolean;
  /** One line of result. */
  print(line: string): void;
  /** The one object of --json; whatever follows the first is dropped: `serve` has printed its own long before it ends. */
  printObject(value: object): void;
  /** One line for people beside the result. */
  note(line: string): void;
  /** Replaces the line being drawn; only where interactive. */
  redraw(line: string): void;
  /** Aborts when nobody reads stdout any more. */
  readonly closed: AbortSignal;
}

/** Messages say of each optional field that is set by a key of its own, `_seed: "seed"`; nobody asked for those. */
function withoutMarkers(key: string, value: unknown): unknown {
  return key.startsWith("_") ? undefined : value;
}

/** Output on this process's own streams. */
export function openOutput(): Output {
  const closed = new AbortController();
  process.stdout.on("error", () => closed.abort());
  process.stderr.on("error", () => undefined);
  let drawn = false;
  let printed = false;
  const clear = (): void => {
    if (drawn) process.stderr.write("\r\u001b[2K");
    drawn = false;
  };
  const print = (line: string): void => {
    clear();
    process.stdout.write(`${line}\n`);
  };
  return {
    interactive: process.stderr.isTTY,
    closed: closed.signal,
    print,
    printObject: (value) => {
      if (!printed) print(JSON.stringify(value, withoutMarkers));
      printed = true;
    },
    note: (line) => {
      clear();
      process.stderr.write(`${line}\n`);
    },
    redraw: (line) => {
      const columns = process.stderr.columns || COLUMNS_DEFAULT;
      process.stderr.write(
        `\r\u001b[2K${Array.from(line)
          .slice(0, columns - 1)
          .join("")}`,
      );
      drawn = true;
    },
  };
}

/** Resolves when both streams have handed over what was written, so that process.exit loses nothing. */
export async function flushOutput(): Promise<void> {
  await Promise.all(
    [process.stdout, process.stderr].map(
      (stream) =>
        new Promise<void>(
          (resolve) => void (stream.writable && !stream.destroyed ? stream.write("", () => resolve()) : resolve()),
        ),
    ),
  );
}
