// Keeps buffers for reuse, so that an exchange does not pay for fresh zeroed pages. They lie in plain memory: V8 copies bytes to
// shared memory one by one when the two sides are not aligned alike, which costs more than the socket.

const CLASS_BYTES_MIN = 65_536;

export class BufferPool {
  readonly #free = new Map<number, ArrayBuffer[]>();
  readonly #retainedBytesMax: number;
  #retainedBytes = 0;

  /** Keeps at most `retainedBytesMax` for reuse; what is given beyond that goes to the garbage collector. */
  constructor(retainedBytesMax: number) {
    this.#retainedBytesMax = retainedBytesMax;
  }

  /** A buffer of at least `bytes`, with whatever it held before. */
  take(bytes: number): ArrayBuffer {
    const size = classBytes(bytes);
    const buffer = this.#free.get(size)?.pop();
    if (buffer === undefined) return new ArrayBuffer(size);
    this.#retainedBytes -= size;
    return buffer;
  }

  /** Gives a buffer of this pool back. Its views must not be used after this. */
  give(buffer: ArrayBuffer): void {
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
