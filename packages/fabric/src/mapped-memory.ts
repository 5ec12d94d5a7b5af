// Files mapped into this process, and locks on them: the two things of the system that Node has no call for. The only file that knows
// koffi, which is loaded at the first use: where it cannot be, the exchange goes by its socket.
import type { TypeObject } from "koffi";

/** What the system does with an open file. */
export interface FileMapper {
  /** The file's first `bytes` bytes, shared with whoever maps them too. Throws when the system refuses. */
  map(descriptor: number, bytes: number): MappedMemory;
  /** Claims the file until the descriptor is closed or the process ends. False where another has it. */
  lock(descriptor: number): boolean;
}

export interface MappedMemory {
  readonly buffer: ArrayBuffer;
  /**
   * Gives the file's memory back at once. What was mapped reads as zeros from then on, and stays a valid address as long as there is a view
   * of it: one that somebody kept must not end the process.
   */
  retire(): void;
}

// <sys/mman.h> and <sys/file.h> of Linux, the same on x64 and arm64.
const PROTECT_READ_WRITE = 3;
const MAP_SHARED = 0x1;
const MAP_IN_PLACE_OF_FILE = 0x2 | 0x10 | 0x20 | 0x40_00;
const LOCK_OR_FAIL = 2 | 4;
const MAP_FAILED = 0xffff_ffff_ffff_ffffn;

let loading: Promise<FileMapper> | undefined;

/** Loads koffi once. Rejects where this platform has none. */
export function fileMapper(): Promise<FileMapper> {
  loading ??= load();
  return loading;
}

async function load(): Promise<FileMapper> {
  if (process.platform !== "linux") throw new Error(`files are mapped on Linux only, this is ${process.platform}`);
  const { default: koffi } = await import("koffi");
  const system = koffi.load(null);
  const pointer: TypeObject = koffi.pointer("void");
  const mmap = system.func("mmap", pointer, [pointer, "size_t", "int", "int", "int", "int64"]);
  const munmap = system.func("munmap", "int", [pointer, "size_t"]);
  const flock = system.func("flock", "int", ["int", "int"]);
  const mapped = (at: unknown, bytes: number, flags: number, descriptor: number): unknown => {
    const address: unknown = mmap(at, bytes, PROTECT_READ_WRITE, flags, descriptor, 0);
    if (koffi.address(address) === MAP_FAILED) throw new Error(`mmap of ${bytes} bytes failed, errno ${koffi.errno()}`);
    return address;
  };
  /** Nobody has a view any more. */
  const unused = new FinalizationRegistry<readonly [address: unknown, bytes: number]>(([address, bytes]) => {
    munmap(address, bytes);
  });
  return {
    map: (descriptor, bytes) => {
      const address = mapped(null, bytes, MAP_SHARED, descriptor);
      const buffer = koffi.view(address, bytes);
      unused.register(buffer, [address, bytes]);
      return { buffer, retire: () => void mapped(address, bytes, MAP_IN_PLACE_OF_FILE, -1) };
    },
    lock: (descriptor) => flock(descriptor, LOCK_OR_FAIL) === 0,
  };
}
