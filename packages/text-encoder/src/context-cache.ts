// Keeps finished contexts by text, least recently used first to go, and lets callers of one text share one computation.
// Knows nothing of texts or rows but their size.

export interface Sized {
  readonly rows: Uint8Array;
}

export class ContextCache<T extends Sized = Sized> {
  readonly #bytesMax: number;
  #bytes = 0;
  readonly #kept = new Map<string, T>();
  readonly #underWay = new Map<string, Promise<T>>();

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** The context under `key`, made by `make` when it is not kept; a failed making is not kept. */
  get(key: string, make: () => Promise<T>): Promise<T> {
    const kept = this.#kept.get(key);
    if (kept !== undefined) {
      this.#kept.delete(key);
      this.#kept.set(key, kept);
      return Promise.resolve(kept);
    }
    let making = this.#underWay.get(key);
    if (making === undefined) {
      making = make()
        .then((made) => {
          this.#keep(key, made);
          return made;
        })
        .finally(() => this.#underWay.delete(key));
      this.#underWay.set(key, making);
    }
    return making;
  }

  #keep(key: string, made: T): void {
    if (made.rows.byteLength > this.#bytesMax) return;
    this.#kept.set(key, made);
    this.#bytes += made.rows.byteLength;
    for (const [oldest, { rows }] of this.#kept) {
      if (this.#bytes <= this.#bytesMax) return;
      this.#kept.delete(oldest);
      this.#bytes -= rows.byteLength;
    }
  }
}
