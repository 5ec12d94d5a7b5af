// The text encoder of an imported Wan folder: rows of the text as transformers gives them, zeros behind, at two lengths.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openBundle } from "@moevie/bundle";
import { importModel } from "@moevie/importer";
import { readTensors } from "./safetensors-file.ts";
import { BundleSessions, i64, largestDifference } from "./sessions.ts";

const HERE = join(import.meta.dirname, "wan");
const TOLERANCE = 2e-5;
const folder = mkdtempSync(join(tmpdir(), "moevie-wan-text-"));
const golden = readTensors(join(HERE, "goldens/text_encoder.safetensors"));
let sessions: BundleSessions;

beforeAll(async () => {
  await importModel(join(HERE, "model"), join(folder, "bundle"));
  sessions = new BundleSessions(await openBundle(join(folder, "bundle")));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test.each(["en", "zh", "empty"].flatMap((prompt) => [64, 512].map((length) => ({ prompt, length }))))(
  "$prompt, $length tokens",
  async ({ prompt, length }) => {
    const at = `${prompt}.${length}`;
    const [ids, mask, wanted] = ["input_ids", "attention_mask", "prompt_embeds"].map((name) =>
      golden.get(`${at}.${name}`)!,
    ) as [Golden, Golden, Golden];
    const { rows } = await sessions.run("text-encoder", {
      ids: i64([1, length], ids.data),
      mask: i64([1, length], mask.data),
    });
    expect(largestDifference(rows!.data as Float32Array, wanted.data)).toBeLessThan(TOLERANCE);
    // As the service asks it: the text's tokens alone.
    const used = mask.data.reduce((sum, value) => sum + value, 0);
    const short = await sessions.run("text-encoder", {
      ids: i64([1, used], ids.data.subarray(0, used)),
      mask: i64([1, used], new Float32Array(used).fill(1)),
    });
    const width = wanted.shape[2]!;
    expect(largestDifference(short["rows"]!.data as Float32Array, wanted.data.subarray(0, used * width))).toBeLessThan(
      TOLERANCE,
    );
    expect(wanted.data.subarray(used * width).every((value) => value === 0)).toBe(true);
  },
);

type Golden = NonNullable<ReturnType<typeof golden.get>>;
