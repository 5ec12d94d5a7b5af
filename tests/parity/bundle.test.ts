// A bundle as the importer makes it: what opening it promises, and what is said when something about it is wrong.
import { createHash } from "node:crypto";
import { execFileSync, spawnSync } from "node:child_process";
import {
  appendFileSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { BundleError, inspectBundle, openBundle } from "@moevie/bundle";
import { GraphBuilder, importStarter } from "@moevie/importer";
import { readTensors, writeTensors } from "./safetensors-file.ts";
import { createSession } from "./sessions.ts";
import { writeTinyModel } from "./tiny.ts";
import { tokenDenoiser } from "../support/token-denoiser.ts";

const folder = mkdtempSync(join(tmpdir(), "moevie-bundle-"));
const made = join(folder, "made");
beforeAll(async () => {
  writeTinyModel(join(made, "model"), { draft: true });
  await importStarter(join(made, "model"), join(made, "bundle"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

let at = "";
let count = 0;
beforeEach(() => {
  at = join(folder, `case${count++}`);
  cpSync(made, at, { recursive: true });
});
const model = (path: string): string => join(at, "model", path);
const bundle = (): string => join(at, "bundle");
const WEIGHTS = "transformer/model.safetensors";

function editManifest(edit: (manifest: Record<string, unknown>) => void): void {
  const file = join(bundle(), "manifest.json");
  const manifest = JSON.parse(readFileSync(file, "utf8")) as Record<string, unknown>;
  edit(manifest);
  writeFileSync(file, JSON.stringify(manifest));
}

/** Puts the values of `change` into `target`, objects into objects. */
function merge(target: Record<string, unknown>, change: object): void {
  for (const [key, value] of Object.entries(change) as [string, unknown][]) {
    const inner = target[key];
    if (typeof value === "object" && value !== null && !Array.isArray(value) && typeof inner === "object")
      merge(inner as Record<string, unknown>, value);
    else target[key] = value;
  }
}

describe("a sound bundle", () => {
  test("moved together with its weights it opens with the same digest", async () => {
    const first = await openBundle(join(made, "bundle"), { verify: true });
    expect((await openBundle(bundle(), { verify: true })).digest).toBe(first.digest);
    expect(first.digest).toMatch(/^[0-9a-f]{64}$/);
  });

  test("its weights are named, not copied", () => {
    const bytes = readdirSync(join(bundle(), "graphs")).reduce(
      (sum, file) => sum + statSync(join(bundle(), "graphs", file)).size,
      0,
    );
    expect(bytes).toBeLessThan(statSync(model(WEIGHTS)).size);
    for (const file of readdirSync(join(bundle(), "graphs")))
      expect(readFileSync(join(bundle(), "graphs", file)).includes(at)).toBe(false);
  });

  test("every graph loads, and its session has the inputs and outputs the manifest says", async () => {
    const opened = await openBundle(bundle());
    for (const [name, { inputs, outputs }] of Object.entries(opened.manifest.graphs)) {
      const slots = /^experts\.(\d+)$/.exec(name)?.[1];
      const bytes =
        slots === undefined
          ? await opened.graph(name)
          : await opened.expertGraph(
              1,
              Array.from({ length: Number(slots) }, (_, i) => i),
            );
      const session = await createSession(bytes);
      expect(session.inputNames).toEqual(inputs.map((input) => input.name));
      expect(session.outputNames).toEqual(outputs.map((output) => output.name));
      await session.release();
    }
  });

  test("inspect adds up files and says what a session holds", async () => {
    const opened = await openBundle(bundle());
    const summary = await inspectBundle(opened);
    expect(summary.totalBytes).toBe(Object.values(summary.fileBytes).reduce((a, b) => a + b, 0));
    const { layers, experts, hidden, expertHidden } = tokenDenoiser(opened);
    const expertBytes = 4 * layers * experts * (2 * hidden * expertHidden + hidden + expertHidden);
    expect(summary.graphs["monolith"]!.weightBytesPerSession).toBeGreaterThan(expertBytes);
    expect(summary.graphs["block.0"]!.weightBytesPerSession).toBeLessThan(expertBytes);
    expect(summary.variants).toMatchObject({ standard: { steps: 4, guidance: 2 }, draft: { steps: 2, guidance: 1 } });
  });
});

/** Puts another graph in the place of "head", with its right hash. */
const replaceHead = (bytes: Uint8Array): void => {
  writeFileSync(join(bundle(), "graphs", "head.onnx"), bytes);
  const sha256 = createHash("sha256").update(bytes).digest("hex");
  editManifest((manifest) => {
    const entry = (manifest["files"] as { path: string }[]).find(({ path }) => path === "graphs/head.onnx")!;
    Object.assign(entry, { bytes: bytes.byteLength, sha256 });
  });
};
const graphHead = async (): Promise<Uint8Array> => (await openBundle(bundle())).graph("head");
/** A graph whose one weight is 64 values at `offset` of `location`. */
const outside = (location: string, offset: number): Uint8Array => {
  const g = new GraphBuilder("head");
  const tensor = { name: "w", dtype: "f32", shape: [64], offset, length: 256, location } as const;
  g.output("y", g.weight({ tensor: () => tensor }, "w"), "f32", [64]);
  return g.encode();
};
const editConfig = (edit: (config: Record<string, unknown>) => void): void => {
  const file = model("transformer/config.json");
  const config = JSON.parse(readFileSync(file, "utf8")) as Record<string, unknown>;
  edit(config);
  writeFileSync(file, JSON.stringify(config));
};

const refused = async (pattern: RegExp, verify = false): Promise<void> => {
  await expect(openBundle(bundle(), { verify })).rejects.toThrow(pattern);
  await expect(openBundle(bundle(), { verify })).rejects.toBeInstanceOf(BundleError);
};

describe("a bundle with something wrong is refused by name", () => {
  test("a missing folder, manifest or file", async () => {
    await expect(openBundle(join(at, "nowhere"))).rejects.toThrow(/nowhere: is missing/);
    rmSync(model(WEIGHTS));
    await refused(/weights\/transformer\/model\.safetensors: is missing/);
    renameSync(join(bundle(), "manifest.json"), join(at, "manifest.json"));
    mkdirSync(join(bundle(), "manifest.json"));
    await refused(/manifest\.json: cannot be read \(EISDIR\)/);
    rmSync(join(bundle(), "manifest.json"), { recursive: true });
    renameSync(join(at, "manifest.json"), join(bundle(), "manifest.json"));
    rmSync(join(bundle(), "manifest.json"));
    await refused(/manifest\.json: is missing/);
  });

  test("a truncated or grown weight file", async () => {
    truncateSync(model(WEIGHTS), 1000);
    await refused(/is 1000 bytes long, expected \d+: it is truncated/);
    cpSync(join(made, "model"), join(at, "model"), { recursive: true });
    appendFileSync(model(WEIGHTS), "x");
    await refused(/is \d+ bytes long, expected \d+$/);
  });

  test("a changed weight, found by its hash when asked to verify", async () => {
    const bytes = readFileSync(model(WEIGHTS));
    bytes[bytes.length - 1]! ^= 1;
    writeFileSync(model(WEIGHTS), bytes);
    await refused(/transformer\/model\.safetensors: has sha256 [0-9a-f]{64}, expected [0-9a-f]{64}/, true);
    const opened = await openBundle(bundle());
    await expect(opened.verify()).rejects.toThrow(/has sha256/);
  });

  test("a changed header of a weight file", async () => {
    const bytes = readFileSync(model(WEIGHTS));
    bytes.write('"f99"', bytes.indexOf('"F16"'));
    writeFileSync(model(WEIGHTS), bytes);
    await refused(/tensor "patch_embedding\.weight": unknown dtype "f99"/);
  });

  test("a changed graph", async () => {
    const file = join(bundle(), "graphs", "head.onnx");
    const bytes = readFileSync(file);
    bytes[40]! ^= 1;
    writeFileSync(file, bytes);
    await expect((await openBundle(bundle())).graph("head")).rejects.toThrow(/graphs\/head\.onnx: has sha256/);
  });

  test("a graph of the right hash that is no model, or could hide weights from the check", async () => {
    const whole = readFileSync(join(bundle(), "graphs", "head.onnx"));
    for (const bytes of [whole.subarray(0, whole.length - 10), Buffer.alloc(64, 0xff)]) {
      replaceHead(bytes);
      await expect(graphHead()).rejects.toThrow(/graphs\/head\.onnx: is not an ONNX model/);
      await expect(graphHead()).rejects.toBeInstanceOf(BundleError);
    }
    // ModelProto field 25, functions, empty.
    replaceHead(Buffer.concat([whole, Buffer.of(0xca, 0x01, 0x00)]));
    await expect(graphHead()).rejects.toThrow(/graphs\/head\.onnx: has field 25 of the model/);
  });

  test("a graph whose weight lies outside the bundle's files, or beyond one's end", async () => {
    for (const location of ["etc/hostname", "/etc/hostname", "../model/transformer/config.json"]) {
      replaceHead(outside(location, 0));
      await expect(graphHead()).rejects.toThrow(`${location}: is not among the files of manifest.json`);
    }
    replaceHead(outside("weights/transformer/model.safetensors", 1e12));
    await expect(graphHead()).rejects.toThrow(/weight w\.stored is bytes 1000000000000 to .* which has \d+/);
  });

  test.each([
    [
      "counts beyond sense",
      { denoiser: { experts: 1e15 } },
      /denoiser\.experts is 1000000000000000, expected a whole number from/,
    ],
    [
      "as many means as it likes",
      { latent: { mean: [0] } },
      /latent\.mean is \[0\], expected one for each of 8 channels/,
    ],
    ["a spread of nothing", { latent: { std: Array.from({ length: 8 }, () => 0) } }, /latent\.std is .*above 0/],
    ["colours of two", { latent: { toRgb: Array.from({ length: 8 }, () => [0, 0]) } }, /latent\.toRgb is .*expected 3/],
    ["sides the patch does not divide", { width: 72 }, /width is 72, expected a multiple of 16/],
    ["more choices than experts", { denoiser: { topK: 5 } }, /denoiser\.topK is 5, expected at most the 4/],
    [
      "groups that leave experts over",
      { denoiser: { gate: { groups: 3 } } },
      /gate\.groups is 3, expected a divisor of 4/,
    ],
    ["a patch of text", { denoiser: { patch: ["1", 2, 2] } }, /denoiser\.patch is \["1",2,2\], expected whole numbers/],
    ["a patch of two sizes", { denoiser: { patch: [2, 2] } }, /denoiser\.patch is \[2,2\], expected 3 sizes/],
    [
      "a variant of no steps",
      { variants: { draft: { steps: 0 } } },
      /variants is .*expected entries of steps, guidance/,
    ],
    [
      "a variant whose graphs are not there",
      { variants: { draft: { graphs: "sketch." } } },
      /variants\.draft\.graphs is "sketch\.", expected what graphs begin with, there is no graph sketch\.context/,
    ],
    ["an upsampling without a graph", { latent: { upsampling: 2 } }, /upsampling is 2, expected 1: there is no graph/],
    ["no shift", { schedule: { shift: 0 } }, /schedule\.shift is 0, expected a number above 0/],
  ])("a manifest with %s", async (_what, change, message) => {
    editManifest((manifest) => merge(manifest, change));
    await refused(message);
  });

  test("a manifest that lists a file twice, or is too long to be one", async () => {
    editManifest((manifest) => {
      const files = manifest["files"] as object[];
      files.push(files[0] ?? {});
    });
    await refused(/files has graphs\/text-encoder\.onnx twice/);
    truncateSync(join(bundle(), "manifest.json"), 17 * 1024 * 1024);
    await refused(/manifest\.json: is 17825792 bytes long, expected at most 16777216/);
  });

  test("an operator this version does not run", async () => {
    const g = new GraphBuilder("head");
    g.output("y", g.op("Erf", [g.input("x", "f32", ["n"])]), "f32", ["n"]);
    replaceHead(g.encode());
    await expect((await openBundle(bundle())).graph("head")).rejects.toThrow(
      /graphs\/head\.onnx: operator Erf is not one this version runs/,
    );
  });

  test("a format, field or graph it does not know", async () => {
    editManifest((manifest) => (manifest["format"] = "moevie-bundle/9"));
    await refused(/format is "moevie-bundle\/9", expected moevie-bundle\/1/);
    editManifest((manifest) => Object.assign(manifest, { format: "moevie-bundle/1", frameRate: 0 }));
    await refused(/frameRate is 0, expected a whole number from 1 to 65536/);
    editManifest((manifest) => Object.assign(manifest, { frameRate: 8, variants: {} }));
    await refused(/variants is \{\}, expected one of the name "standard" among them/);
    cpSync(join(made, "bundle"), bundle(), { recursive: true });
    await expect((await openBundle(bundle())).graph("upsampler")).rejects.toThrow(
      /graph "upsampler" is missing, there are text-encoder/,
    );
    writeFileSync(join(bundle(), "manifest.json"), "{");
    await refused(/manifest\.json: is not JSON/);
  });

  test("a path that leaves its root, plainly or through a link", async () => {
    mkdirSync(join(at, "elsewhere"));
    renameSync(model(WEIGHTS), join(at, "elsewhere", "model.safetensors"));
    symlinkSync(join(at, "elsewhere", "model.safetensors"), model(WEIGHTS));
    await refused(/transformer\/model\.safetensors: is a link that leaves its root/);
    rmSync(model(WEIGHTS));
    renameSync(join(at, "elsewhere", "model.safetensors"), model(WEIGHTS));
    editManifest(
      (manifest) =>
        ((manifest["files"] as { path: string }[]).at(-1)!.path = "weights/../../elsewhere/model.safetensors"),
    );
    await refused(/weights\/\.\.\/\.\.\/elsewhere\/model\.safetensors: leaves its root/);
    editManifest((manifest) => ((manifest["files"] as { path: string }[]).at(-1)!.path = "/etc/hostname"));
    await refused(/is absolute/);
  });

  test("experts that are not there", async () => {
    const opened = await openBundle(bundle());
    await expect(opened.expertGraph(0, [0, 9])).rejects.toThrow(/no expert 9 of layer 0/);
    await expect(opened.expertGraph(7, [0])).rejects.toThrow(/tensor "blocks\.7\.ffn\.experts\.w1" is missing/);
  });
});

describe("importing", () => {
  const main = join(import.meta.dirname, "../../packages/importer/src/main.ts");
  const run = (...args: string[]): { status: number | null; stderr: string } =>
    spawnSync(process.execPath, [main, ...args], { encoding: "utf8" });

  test("again changes nothing, and a changed model replaces the bundle; no scratch folder stays", async () => {
    const before = statSync(join(bundle(), "manifest.json")).mtimeMs;
    await importStarter(join(at, "model"), bundle());
    expect(statSync(join(bundle(), "manifest.json")).mtimeMs).toBe(before);
    const { digest } = await openBundle(bundle());
    writeTinyModel(join(at, "model"), { seed: 2 });
    await Promise.all([importStarter(join(at, "model"), bundle()), importStarter(join(at, "model"), bundle())]);
    expect((await openBundle(bundle(), { verify: true })).digest).not.toBe(digest);
    expect(readdirSync(at).sort()).toEqual(["bundle", "model"]);
  });

  test("again mends a graph that was damaged or lost", async () => {
    const head = join(bundle(), "graphs", "head.onnx");
    truncateSync(head, 100);
    await importStarter(join(at, "model"), bundle());
    await (await openBundle(bundle())).checkGraphs();
    rmSync(head);
    await importStarter(join(at, "model"), bundle());
    await (await openBundle(bundle())).checkGraphs();
    expect(readdirSync(at).sort()).toEqual(["bundle", "model"]);
  });

  test("by command makes the same bundle", async () => {
    execFileSync(process.execPath, [main, join(at, "model"), "--out", join(at, "second")]);
    expect((await openBundle(join(at, "second"))).digest).toBe((await openBundle(bundle())).digest);
  });

  const softmax = { scores: "softmax", renormalise: true };

  test.each([
    [
      "a selection bias",
      { gate: { ...softmax, selection_bias: true } },
      /gate: selection_bias is true, expected false/,
    ],
    ["shared experts", { gate: { ...softmax, shared_experts: 1 } }, /gate: shared_experts is 1, expected 0/],
    [
      "an option of the gate it does not know",
      { gate: { ...softmax, jitter: 0.1 } },
      /gate: jitter is 0\.1, expected only/,
    ],
    [
      "groups that do not divide the experts",
      { gate: { ...softmax, groups: 3 } },
      /groups is 3, expected a divisor of/,
    ],
    [
      "more groups kept than there are",
      { gate: { ...softmax, groups: 2, groups_kept: 3 } },
      /groups_kept is 3, expected/,
    ],
    ["more choices than experts", { num_experts_per_tok: 5 }, /num_experts_per_tok is 5, expected at most the 4/],
    ["a patch over two frames", { patch_size: [2, 2, 2] }, /patch_size is \[2,2,2\], expected 1 frame/],
    ["an odd head", { attention_head_dim: 13 }, /attention_head_dim is 13, expected an even number/],
    ["positions that share out unevenly", { pos_dim: 6 }, /pos_dim is 6, expected a multiple of 6 beyond 6/],
  ])("refuses a model with %s", async (_what, change, message) => {
    editConfig((config) => Object.assign(config, change));
    await expect(importStarter(join(at, "model"), join(at, "x"))).rejects.toThrow(message);
    expect(readdirSync(at).sort()).toEqual(["bundle", "model"]);
  });

  test("refuses weights that no graph would use: the model would run without a part of it", async () => {
    const tensors = readTensors(model(WEIGHTS));
    writeTensors(
      model(WEIGHTS),
      new Map([...tensors, ["blocks.0.ffn.gate.bias", { shape: [4], data: new Float32Array(4) }]]),
    );
    await expect(importStarter(join(at, "model"), join(at, "x"))).rejects.toThrow(
      /tensors not of this architecture: "blocks\.0\.ffn\.gate\.bias"/,
    );
  });

  test("by command refuses wrong use and bad models in one line", () => {
    expect(run()).toMatchObject({ status: 2, stderr: expect.stringMatching(/^usage/m) as string });
    const missing = run(join(at, "nothing"), "--out", join(at, "x"));
    expect(missing.status).toBe(1);
    rmSync(model(WEIGHTS));
    expect(run(join(at, "model"), "--out", join(at, "x"))).toMatchObject({
      status: 1,
      stderr: expect.stringMatching(/^[^\n]*model\.safetensors: cannot be opened \(ENOENT\)\n$/) as string,
    });
    writeTinyModel(join(at, "model"));
    writeFileSync(
      model("transformer/config.json"),
      readFileSync(model("transformer/config.json"), "utf8").replace('"num_experts": 4', '"num_experts": 5'),
    );
    expect(run(join(at, "model"), "--out", join(at, "x")).stderr).toMatch(
      /of another shape: "blocks\.0\.ffn\.gate\.weight" \[4, 48\], expected \[5, 48\]/,
    );
    expect(readdirSync(at).sort()).toEqual(["bundle", "model"]);
  });
});
