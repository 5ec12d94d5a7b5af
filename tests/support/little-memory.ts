// Little memory for one process: how much the system says is free, by a file, so that a real process refuses what it has no room for without
// the machine being full.
import { renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";

export class LittleMemory {
  /** Of the process that is to go by it. */
  readonly environment: Readonly<Record<string, string>>;
  readonly #file: string;

  /** Keeps its file in `folder`. */
  constructor(folder: string, freeBytes: number) {
    this.#file = join(folder, "free-bytes");
    this.free(freeBytes);
    const code = `import { readFileSync } from "node:fs";
process.availableMemory = () => Number(readFileSync(${JSON.stringify(this.#file)}, "utf8"));`;
    this.environment = { NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(code)}` };
  }

  /** From now on so many bytes are free. */
  free(bytes: number): void {
    writeFileSync(`${this.#file}.new`, String(bytes));
    renameSync(`${this.#file}.new`, this.#file);
  }
}
