// A wall clock that jumps while processes run: libfaketime, loaded before their C library, adds what a file says to the time of day and
// leaves the monotonic clock alone, as an operator or a time server does. For programs that use the C library; a nats-server does not.
import { renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { debianFolder } from "./debian-package.ts";

const LIBRARY = "libfaketime.so.1";
const ARCHITECTURES: Readonly<Record<string, string>> = { x64: "x86_64", arm64: "aarch64" };

export class ShiftedClock {
  /** Of the processes that are to live by it. */
  readonly environment: Readonly<Record<string, string>>;
  readonly #file: string;

  /** Keeps its file in `folder`. Throws when the library cannot be fetched. */
  constructor(folder: string) {
    this.#file = join(folder, "clock");
    this.shift(0);
    const architecture = ARCHITECTURES[process.arch] ?? process.arch;
    this.environment = {
      LD_PRELOAD: join(debianFolder("libfaketime", `usr/lib/${architecture}-linux-gnu/faketime`, LIBRARY), LIBRARY),
      FAKETIME_TIMESTAMP_FILE: this.#file,
      FAKETIME_NO_CACHE: "1",
      FAKETIME_DONT_FAKE_MONOTONIC: "1",
    };
  }

  /** From now on the time of day is the true one and so many seconds. */
  shift(seconds: number): void {
    writeFileSync(`${this.#file}.new`, `${seconds < 0 ? "" : "+"}${seconds}\n`);
    renameSync(`${this.#file}.new`, this.#file);
  }
}
