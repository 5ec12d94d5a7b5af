// Text contexts: what the router holds of them, and how it gets those it lacks from the stream that needs them.
import { createHash } from "node:crypto";
import { MoevieError, limit } from "@moevie/contracts";
import type { ContextHead, DenoiseRequest, DenoiseResponse } from "@moevie/contracts";
import type { Loose } from "@moevie/runtime";
import { ContextCache } from "./context-cache.ts";
import type { DenoiserContext } from "./context-cache.ts";
import { collectTensor, invalidTensor, tensorBytes } from "./tensor-stream.ts";
import type { Evaluator } from "./evaluator.ts";

/** A context is another for each variant: what evaluates it makes its own of the rows. */
export interface ContextKey {
  /** What the names of the variant's graphs begin with. */
  readonly graphs: string;
  /** sha256 of the rows, hex. */
  readonly hash: string;
}

type Requests = AsyncIterator<DenoiseRequest>;

export class TextContexts {
  readonly #evaluator: Pick<Evaluator, "context">;
  readonly #width: number;
  readonly #cache = new ContextCache();
  /** Contexts that a stream is bringing; settled when it has, or will not. */
  readonly #coming = new Map<string, Promise<void>>();

  /** `width` of the rows. */
  constructor(evaluator: Pick<Evaluator, "context">, width: number) {
    this.#evaluator = evaluator;
    this.#width = width;
  }

  /**
   * The context, asked of the caller where it is not held; while another stream brings it, that one is waited for. Throws
   * INVALID_FIELD for another context than asked, CANCELLED when the caller went away.
   */
  async *wanted(
    key: ContextKey,
    requests: Requests,
    signal: AbortSignal,
  ): AsyncGenerator<Loose<DenoiseResponse>, DenoiserContext> {
    const name = nameOf(key);
    for (;;) {
      const held = this.#cache.get(name);
      if (held !== undefined) return held;
      const coming = this.#coming.get(name);
      if (coming === undefined) break;
      await settledOrAborted(coming, signal);
    }
    const brought = Promise.withResolvers<void>();
    this.#coming.set(name, brought.promise);
    try {
      yield { contextMissing: { contextHash: key.hash } };
      const next = await requests.next();
      const head = next.done === true ? undefined : next.value.context;
      if (head === undefined || head.contextHash !== key.hash)
        throw invalidTensor("context", `must be ${key.hash}, which was asked for`);
      return await this.receive(head, key.graphs, requests, signal);
    } finally {
      this.#coming.delete(name);
      brought.resolve();
    }
  }

  /** Takes the rows behind `head` and keeps what the evaluator makes of them. Throws INVALID_FIELD, CANCELLED. */
  async receive(head: ContextHead, graphs: string, requests: Requests, signal: AbortSignal): Promise<DenoiserContext> {
    const { shape, bytes } = tensorBytes(head.rows, "context.rows", 2, limit("contextCacheBytesMax"));
    const [tokens, width] = shape as [number, number];
    if (width !== this.#width) throw invalidTensor("context.rows", `width must be ${this.#width}`);
    const rows = await collectTensor(requests, bytes, "context.rows");
    const hash = createHash("sha256").update(new Uint8Array(rows.buffer)).digest("hex");
    if (hash !== head.contextHash) throw invalidTensor("context.context_hash", "is not the sha256 of the rows");
    if (signal.aborted) throw new MoevieError("CANCELLED", "The caller went away.");
    const context = await this.#evaluator.context(graphs, rows, tokens, width);
    this.#cache.put(nameOf({ graphs, hash }), context);
    return context;
  }
}

const nameOf = ({ graphs, hash }: ContextKey): string => graphs + hash;

async function settledOrAborted(work: Promise<void>, signal: AbortSignal): Promise<void> {
  const aborted = Promise.withResolvers<void>();
  const onAbort = (): void => aborted.resolve();
  signal.addEventListener("abort", onAbort, { once: true });
  if (signal.aborted) onAbort();
  await Promise.race([work, aborted.promise]);
  signal.removeEventListener("abort", onAbort);
  if (signal.aborted) throw new MoevieError("CANCELLED", "The caller went away.");
}
