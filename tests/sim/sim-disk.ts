// The disk of a simulated machine: what the files of jobs need of one. It tells what was made durable from what was only written, may be
// full, and gives a process that dies in the middle of a call what a real one gives it: all, a part or nothing.
import { dirname } from "node:path";
import type { Disk } from "@moevie/job-store/parts";
import type { SimProcess, World } from "./world.ts";

class SimFile {
  bytes = Buffer.alloc(0);
  durable = Buffer.alloc(0);

  append(chunk: Uint8Array): void {
    this.bytes = Buffer.concat([this.bytes, chunk]);
  }

  sync(): void {
    this.durable = this.bytes;
  }
}

/** A folder has no file. */
type Entries = Map<string, SimFile | undefined>;

function failure(code: string, path: string): Error {
  return Object.assign(new Error(`${code}: ${path}`), { code });
}

export class SimDisk {
  isFull = false;
  readonly #world: World;
  readonly #slowMs: () => number;
  #entries: Entries;
  /** Those whose names outlive the power. */
  #durable: Entries;

  /** `slowMs`: what a call takes. */
  constructor(world: World, root: string, slowMs: () => number) {
    this.#world = world;
    this.#slowMs = slowMs;
    this.#entries = new Map([[root, undefined]]);
    this.#durable = new Map(this.#entries);
  }

  /** Paths of all files. */
  get paths(): readonly string[] {
    return [...this.#entries].filter(([, file]) => file !== undefined).map(([path]) => path);
  }

  /** What is left of a file when the power goes now; undefined: nothing. */
  durable(path: string): Buffer | undefined {
    for (let folder = dirname(path); folder !== dirname(folder); folder = dirname(folder))
      if (!this.#durable.has(folder)) return undefined;
    return this.#durable.get(path)?.durable;
  }

  /** The power goes: what was not made durable is gone. */
  cutPower(): void {
    const left: Entries = new Map();
    for (const [path, file] of this.#durable)
      if (file === undefined || this.durable(path) !== undefined) left.set(path, file);
    for (const file of left.values()) if (file !== undefined) file.bytes = file.durable;
    this.#entries = left;
    this.#durable = new Map(left);
  }

  /** As `process` has it. */
  of(process: SimProcess): Disk {
    const call = <T>(work: (isCutOff: boolean) => T): Promise<T> => this.#call(process, work);
    const disk = {
      mkdir: (path: string) => call(() => this.#makeFolders(path)),
      open: (path: string, flags = "r") => call(() => this.#handle(process, path, flags, call)),
      readdir: (path: string) => call(() => this.#names(path)),
      rename: (from: string, to: string) => call(() => this.#rename(from, to)),
      rmdir: (path: string) => call(() => this.#removeFolder(path)),
      rm: (path: string) => call(() => this.#remove(path)),
      stat: (path: string) => call(() => ({ size: this.#file(path).bytes.length })),
      writeFile: (path: string, bytes: Uint8Array | string) =>
        call((isCutOff) => {
          const file = this.#created(path);
          this.#write(file, Buffer.from(bytes), isCutOff);
          file.sync();
        }),
    };
    return disk as unknown as Disk;
  }

  /** A call into the kernel: it takes its time, and one under way when its process dies is done, done in part, or not done. */
  #call<T>(process: SimProcess, work: (isCutOff: boolean) => T): Promise<T> {
    return new Promise((resolve, reject) => {
      if (!process.alive) return;
      this.#world.after(this.#slowMs(), () => {
        const isCutOff = !process.alive;
        if (isCutOff && this.#world.chance(0.5)) return;
        try {
          const value = work(isCutOff);
          process.deliver(() => resolve(value));
        } catch (thrown) {
          process.deliver(() => reject(thrown as Error));
        }
      });
    });
  }

  #handle(
    process: SimProcess,
    path: string,
    flags: string,
    call: <T>(work: (isCutOff: boolean) => T) => Promise<T>,
  ): object {
    const close = (): Promise<void> => call(() => undefined);
    if (flags !== "w" && this.#entries.has(path) && this.#entries.get(path) === undefined)
      return { sync: () => call(() => this.#syncFolder(path)), close };
    const file = flags === "w" ? this.#created(path) : this.#file(path);
    let at = 0;
    return {
      close,
      sync: () => {
        process.writes();
        return call(() => file.sync());
      },
      writeFile: (chunk: Uint8Array) => call((isCutOff) => this.#write(file, chunk, isCutOff)),
      read: (into: Uint8Array) =>
        call(() => {
          const bytes = file.bytes.subarray(at, at + into.length);
          into.set(bytes);
          at += bytes.length;
          return { bytesRead: bytes.length };
        }),
    };
  }

  #write(file: SimFile, chunk: Uint8Array, isCutOff: boolean): void {
    if (!this.isFull && !isCutOff) return file.append(chunk);
    file.append(chunk.slice(0, Math.floor(this.#world.random() * chunk.length)));
    if (this.isFull) throw failure("ENOSPC", "write");
  }

  #file(path: string): SimFile {
    const file = this.#entries.get(path);
    if (file === undefined) throw failure("ENOENT", path);
    return file;
  }

  #created(path: string): SimFile {
    if (!this.#entries.has(dirname(path))) throw failure("ENOENT", path);
    if (this.isFull) throw failure("ENOSPC", path);
    const file = this.#entries.get(path) ?? new SimFile();
    file.bytes = Buffer.alloc(0);
    this.#entries.set(path, file);
    return file;
  }

  #makeFolders(path: string): void {
    if (this.#entries.has(path)) return;
    if (this.isFull) throw failure("ENOSPC", path);
    if (dirname(path) !== path) this.#makeFolders(dirname(path));
    this.#entries.set(path, undefined);
  }

  #names(path: string): readonly string[] {
    if (!this.#entries.has(path)) throw failure("ENOENT", path);
    return [...this.#entries.keys()]
      .filter((each) => each !== path && dirname(each) === path)
      .map((each) => each.slice(path.length + 1));
  }

  #rename(from: string, to: string): void {
    const file = this.#file(from);
    this.#entries.delete(from);
    this.#entries.set(to, file);
  }

  #remove(path: string): void {
    for (const each of this.#entries.keys())
      if (each === path || each.startsWith(`${path}/`)) this.#entries.delete(each);
  }

  #removeFolder(path: string): void {
    if (this.#names(path).length > 0) throw failure("ENOTEMPTY", path);
    this.#entries.delete(path);
  }

  #syncFolder(path: string): void {
    for (const each of this.#durable.keys())
      if (dirname(each) === path && !this.#entries.has(each)) this.#durable.delete(each);
    for (const [each, file] of this.#entries) if (dirname(each) === path) this.#durable.set(each, file);
  }
}
