// Keeps buffers for reuse, so that an exchange does not pay for fresh zeroed pages. What a socket reads or writes lies in plain
// memory: V8 copies bytes to shared memory one by one when the two sides are not aligned alike, which costs more than the
// socket. Shared memory is for what a graph's thread reads in place.

const CLASS_BYTES_MIN = 65_536;

/** Kind of memory of a pool: `plain` for this thread alone, `shared` for graph threads too. */
interface Memory {
  readonly plain: ArrayBuffer;
  readonly shared: SharedArrayBuffer;
}

export class BufferPool<K extends keyof Memory = "plain"> {
  readonly #free = new Map<number, Memory[K][]>();
  readonly #make: (bytes: number) => Memory[K];
  readonly #retainedBytesMax: number;
  #retainedBytes = 0;

  private constructor(make: (bytes: number) => Memory[K], retainedBytesMax: number) {
    this.#make = make;
    this.#retainedBytesMax = retainedBytesMax;
  }

  /** Keeps at most `retainedBytesMax` for reuse; what is given beyond that goes to the garbage collector. */
  static plain(retainedBytesMax: number): BufferPool {
    return new BufferPool((bytes) => new ArrayBuffer(bytes), retainedBytesMax);
  }

  static shared(retainedBytesMax: number): BufferPool<"shared"> {
    return new BufferPool<"shared">((bytes) => new SharedArrayBuffer(bytes), retainedBytesMax);
  }

  /** A buffer of at least `bytes`, with whatever it held before. */
  take(bytes: number): Memory[K] {
    const size = classBytes(bytes);
    const buffer = this.#free.get(size)?.pop();
    if (buffer === undefined) return this.#make(size);
    this.#retainedBytes -= size;
    return buffer;
  }

  /** Gives a buffer of this pool back. Its views must not be used after this. */
  give(buffer: Memory[K]): void {
    const size = buffer.byteLength;
    if (classBytes(size) !== size || this.#retainedBytes + size > this.#retainedBytesMax) return;
    const list = this.#free.get(size);
    if (list === undefined) this.#free.set(size, [buffer]);
    else list.push(buffer);
    this.#retainedBytes += size;
  }
}

function classBytes(bytes: number): number {
  let size = CLASS_BYTES_MIN;
  while (size < bytes) size *= 2;
  return size;
}
