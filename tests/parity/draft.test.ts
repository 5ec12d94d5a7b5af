// A model's draft as the importer takes it: a trunk of its own over the experts there are, and what is said of one that does not fit.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { openBundle } from "@moevie/bundle";
import { importStarter } from "@moevie/importer";
import { readTensors, writeTensors } from "./safetensors-file.ts";
import { writeTinyModel } from "./tiny.ts";

let folder = "";
let draft = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "moevie-draft-"));
  draft = join(folder, "model", "transformer", "draft.safetensors");
  writeTinyModel(join(folder, "model"), { draft: true });
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const imported = (): Promise<unknown> => importStarter(join(folder, "model"), join(folder, "bundle"));

test("a draft's graphs are those of the standard variant by another name, with other weights but for the experts", async () => {
  await imported();
  const bundle = await openBundle(join(folder, "bundle"));
  const { graphs, parameters } = bundle.manifest;
  const drafts = Object.keys(graphs).filter((name) => name.startsWith("draft."));
  expect(drafts).toEqual(
    ["context", "entry", "block.0", "block.1", "head", "monolith"].map((piece) => `draft.${piece}`),
  );
  for (const name of drafts) {
    const standard = name.slice("draft.".length);
    const { inputs, outputs } = graphs[standard]!;
    expect(graphs[name]).toMatchObject({ inputs, outputs });
    expect(await bundle.weightElements(name)).toBe(await bundle.weightElements(standard));
  }
  expect(parameters["denoiser-draft"]).toBeLessThan(parameters["denoiser"]! / 2);
});

test("a draft with experts of its own, with another gate, or said to be there and missing is refused", async () => {
  const tensors = readTensors(draft);
  const name = "blocks.0.ffn.experts.w1";
  const standard = readTensors(join(folder, "model", "transformer", "model.safetensors"));
  writeTensors(draft, new Map([...tensors, [name, standard.get(name)!]]));
  await expect(imported()).rejects.toThrow(/draft\.safetensors.*not of this architecture: .*experts\.w1"/);
  const gate = { shape: [2, 4], data: new Float32Array(8) };
  writeTensors(draft, new Map([...tensors, ["blocks.1.ffn.gate.weight", gate]]));
  await expect(imported()).rejects.toThrow(/draft\.safetensors.*gate\.weight" \[2, 4\], expected \[4, 48\]/);
  rmSync(draft);
  await expect(imported()).rejects.toThrow(/draft\.safetensors: cannot be opened \(ENOENT\)/);
});
