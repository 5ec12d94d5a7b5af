// Token ids against recorded ones, in English and Chinese, cut and padded.
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { Tokens } from "./tokens.ts";

const folder = new URL("../testdata/", import.meta.url);
const json = JSON.parse(readFileSync(new URL("tokenizer.json", folder), "utf8")) as object;
const recorded = JSON.parse(readFileSync(new URL("tokenizer_cases.json", folder), "utf8")) as {
  cases: { text: string; ids: number[] }[];
  padded_and_truncated: { text: string; max_length: number; input_ids: number[]; attention_mask: number[] }[];
};

describe("Tokens", () => {
  const long = new Tokens(json, 512);
  for (const { text, ids } of recorded.cases) {
    it(`gives the recorded ids of ${JSON.stringify(text.slice(0, 40))}`, () => {
      const row = long.encode(text);
      expect(Array.from(row.ids.slice(0, row.usedTokenCount), Number)).toEqual(ids);
    });
  }

  for (const { text, max_length: maxTokens, input_ids: ids, attention_mask: mask } of recorded.padded_and_truncated) {
    it(`cuts and pads ${JSON.stringify(text.slice(0, 20))} to ${maxTokens}`, () => {
      const row = new Tokens(json, maxTokens).encode(text);
      expect(Array.from(row.ids, Number)).toEqual(ids);
      expect(mask).toEqual(ids.map((_, i) => (i < row.usedTokenCount ? 1 : 0)));
    });
  }

  it("takes the empty text as its closing token alone", () => {
    const row = new Tokens(json, 4).encode("");
    expect(row).toEqual({
      ids: BigInt64Array.of(1n, 0n, 0n, 0n),
      usedTokenCount: 1,
    });
  });

  it("names the bundle, not the path, when the file is no tokenizer", async () => {
    await expect(Tokens.read(fileURLToPath(new URL("nothing.json", folder)), 4, "whitespace")).rejects.toMatchObject({
      reason: "BUNDLE_CORRUPT",
      message: expect.not.stringContaining("nothing") as string,
    });
  });
});
