// Text contexts by variant and hash, least recently used out first. Holds what the context graph made of the rows, so that a step never
// projects them again.
import { limit } from "@moevie/contracts";

export interface DenoiserContext {
  /** [1, tokens, d]. */
  readonly ctx: Float32Array;
  readonly tokens: number;
  /** [1, d]. */
  readonly pooled: Float32Array;
}

export class ContextCache {
  readonly #bytesMax: number;
  readonly #entries = new Map<string, DenoiserContext>();
  #bytes = 0;

  constructor(bytesMax: number = limit("contextCacheBytesMax")) {
    this.#bytesMax = bytesMax;
  }

  get bytes(): number {
    return this.#bytes;
  }

  get(hash: string): DenoiserContext | undefined {
    const found = this.#entries.get(hash);
    if (found === undefined) return undefined;
    this.#entries.delete(hash);
    this.#entries.set(hash, found);
    return found;
  }

  /** Keeps the context, even when it alone is above the maximum: the call that brought it needs it. */
  put(hash: string, context: DenoiserContext): void {
    this.#remove(hash);
    for (const oldest of this.#entries.keys()) {
      if (this.#bytes + bytesOf(context) <= this.#bytesMax) break;
      this.#remove(oldest);
    }
    this.#entries.set(hash, context);
    this.#bytes += bytesOf(context);
  }

  #remove(hash: string): void {
    const found = this.#entries.get(hash);
    if (found === undefined) return;
    this.#entries.delete(hash);
    this.#bytes -= bytesOf(found);
  }
}

function bytesOf(context: DenoiserContext): number {
  return context.ctx.byteLength + context.pooled.byteLength;
}
