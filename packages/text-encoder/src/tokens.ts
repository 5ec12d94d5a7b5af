// Text to token ids by the bundle's tokenizer.json, cut and padded as the model was trained. Runs no graph.
import { readFile } from "node:fs/promises";
import { Tokenizer } from "@huggingface/tokenizers";
import { MoevieError } from "@moevie/contracts";
import { cleaned, type Cleaning } from "./clean-text.ts";

const PAD_TOKEN = "<pad>";
const PAD_ID_DEFAULT = 0;

/** Ids of one text [maxTokens], padded behind the first `usedTokenCount`. */
export interface TokenRow {
  readonly ids: BigInt64Array;
  readonly usedTokenCount: number;
}

export class Tokens {
  readonly #tokenizer: Tokenizer;
  readonly #padId: bigint;
  readonly #cleaning: Cleaning;
  readonly maxTokens: number;

  constructor(tokenizerJson: object, maxTokens: number, cleaning: Cleaning = "whitespace") {
    this.#tokenizer = new Tokenizer(tokenizerJson, {});
    this.#padId = BigInt(this.#tokenizer.token_to_id(PAD_TOKEN) ?? PAD_ID_DEFAULT);
    this.maxTokens = maxTokens;
    this.#cleaning = cleaning;
  }

  /** Reads tokenizer.json. Throws BUNDLE_CORRUPT when it is not one. */
  static async read(file: string, maxTokens: number, cleaning: Cleaning): Promise<Tokens> {
    try {
      return new Tokens(JSON.parse(await readFile(file, "utf8")) as object, maxTokens, cleaning);
    } catch (cause) {
      throw new MoevieError("BUNDLE_CORRUPT", "The bundle's tokenizer.json is missing or not understood.", {
        cause,
        detail: file,
      });
    }
  }

  /** A text too long loses its end but keeps the closing token. */
  encode(text: string): TokenRow {
    const all = this.#tokenizer.encode(cleaned(text, this.#cleaning)).ids;
    const closing = all.at(-1);
    const kept =
      all.length <= this.maxTokens || closing === undefined ? all : [...all.slice(0, this.maxTokens - 1), closing];
    const ids = new BigInt64Array(this.maxTokens).fill(this.#padId);
    ids.set(kept.map(BigInt));
    return { ids, usedTokenCount: kept.length };
  }
}
