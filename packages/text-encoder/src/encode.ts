// One text to its context: tokens, rows, and the hash routers know them by. Pure but for the cache.
import { createHash } from "node:crypto";
import type { TextContext } from "@moevie/contracts";
import type { ContextCache } from "./context-cache.ts";
import type { Tokens } from "./tokens.ts";

export type Encode = (text: string) => Promise<TextContext>;

export interface EncoderParts {
  readonly tokens: Tokens;
  /** ids [tokens], of which the first `used` are the text's -> rows [tokens, width], zero behind them. */
  readonly rowsOf: (ids: BigInt64Array, used: number) => Promise<Float32Array>;
  readonly width: number;
  readonly cache: ContextCache<TextContext>;
}

export function createEncoder({ tokens, rowsOf, width, cache }: EncoderParts): Encode {
  return (text) =>
    cache.get(sha256(text), async () => {
      const { ids, usedTokenCount } = tokens.encode(text);
      const rows = littleEndian(await rowsOf(ids, usedTokenCount));
      return { contextHash: sha256(rows), rows, tokenCount: tokens.maxTokens, width, usedTokenCount };
    });
}

function sha256(content: string | Uint8Array): string {
  return createHash("sha256").update(content).digest("hex");
}

/** The values' own bytes: every platform the runtime supports is little-endian. */
function littleEndian(values: Float32Array): Buffer {
  return Buffer.from(values.buffer, values.byteOffset, values.byteLength);
}
