// Cleaning against what diffusers' prompt_clean gave: recorded cases, and 200 texts mixed up at random, cleaned with ftfy 6.3.1.
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { cleaned } from "./clean-text.ts";
import { Tokens } from "./tokens.ts";

const WAN = new URL("../../../tests/parity/wan/", import.meta.url);
const read = (url: URL): unknown => JSON.parse(readFileSync(url, "utf8"));
const { prompt_clean: recorded } = read(new URL("goldens/tokenizer_cases.json", WAN)) as {
  prompt_clean: { raw: string; clean: string; ids: number[] }[];
};
const mixed = read(new URL("fixtures/ftfy.json", import.meta.url)) as { raw: string; clean: string }[];

test.each(recorded)("$raw becomes $clean, and those tokens", ({ raw, clean, ids }) => {
  expect(cleaned(raw, "ftfy")).toBe(clean);
  const tokens = new Tokens(read(new URL("model/tokenizer/tokenizer.json", WAN)) as object, 512, "ftfy");
  const row = tokens.encode(raw);
  expect(Array.from(row.ids.slice(0, row.usedTokenCount), Number)).toEqual(ids);
});

test("texts mixed up by wrong encodings, widths, ligatures and entities are repaired as ftfy does", () => {
  expect(mixed).toHaveLength(200);
  for (const { raw, clean } of mixed) expect(cleaned(raw, "ftfy")).toBe(clean);
});

test("without it, white space alone is put in order", () => {
  expect(cleaned("  sch\u00c3\u00b6n &amp; \n  two ", "whitespace")).toBe("sch\u00c3\u00b6n &amp; two");
});
