// What importing a Wan folder promises beyond its numbers: weights left where they are, on another file system and read-only; bf16 bundles on a
// CPU; and what it refuses, by name.
import {
  chmodSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeEach, expect, test } from "vitest";
import { graphFor, openBundle } from "@moevie/bundle";
import { importModel } from "@moevie/importer";
import { readTensors, writeTensors, type StoredFloat } from "./safetensors-file.ts";
import { BundleSessions, f32, largestDifference } from "./sessions.ts";

const MODEL = join(import.meta.dirname, "wan/model");
const FORWARD = 1.5e-4;
const scratch = mkdtempSync(join(tmpdir(), "moevie-wan-import-"));
const otherDisk = mkdtempSync("/dev/shm/moevie-wan-import-");
let at: string;
let cases = 0;
beforeEach(() => {
  at = join(scratch, `case${cases++}`);
  mkdirSync(at);
  cpSync(MODEL, join(at, "model"), { recursive: true });
});
afterEach(() => rmSync(at, { recursive: true, force: true }));
afterAll(() => [scratch, otherDisk].forEach((folder) => rmSync(folder, { recursive: true, force: true })));

const model = (path: string): string => join(at, "model", path);
const imported = (): Promise<unknown> => importModel(join(at, "model"), join(at, "bundle"));
function edit(path: string, change: (json: Record<string, unknown>) => void): void {
  const json = JSON.parse(readFileSync(model(path), "utf8")) as Record<string, unknown>;
  change(json);
  writeFileSync(model(path), JSON.stringify(json));
}

test("a bf16 bundle on another disk than its read-only weights runs on the CPU in f32, and holds no weight", async () => {
  expect(statSync(otherDisk).dev).not.toBe(statSync(at).dev);
  for (const entry of readdirSync(model("."), { recursive: true, withFileTypes: true }))
    if (entry.isFile()) chmodSync(join(entry.parentPath, entry.name), 0o444);
  const folder = join(otherDisk, "bundle");
  const report = await importModel(model("."), folder, { precision: "bf16", name: "tiny" });
  expect(report.bytesWritten).toBeLessThan(report.bytesNamed);
  expect(readdirSync(folder, { recursive: true }).filter((name) => String(name).endsWith(".safetensors"))).toEqual([]);
  const sessions = new BundleSessions(await openBundle(folder));
  const { manifest } = sessions.bundle;
  expect(manifest).toMatchObject({ name: "tiny", precision: "bf16" });
  expect(graphFor(manifest, "denoiser.high", "cuda:0")).toBe("denoiser.high");
  expect(graphFor(manifest, "denoiser.high", "tensorrt:0")).toBe("denoiser.high.plain");
  const golden = readTensors(join(MODEL, "../goldens/transformer.safetensors"));
  const [latent, text, wanted] = ["shape0.hidden_states", "encoder_hidden_states", "shape0.t999.output"].map((name) =>
    golden.get(name)!,
  );
  const { velocity } = await sessions.run(graphFor(manifest, "denoiser.high", "cpu"), {
    latent: f32(latent!.shape, latent!.data),
    timestep: f32([1], Float32Array.of(999)),
    context: f32(text!.shape, text!.data),
  });
  expect(largestDifference(velocity!.data as Float32Array, wanted!.data)).toBeLessThan(FORWARD);
});

test.each<StoredFloat>(["f16", "bf16", "f8_e4m3"])(
  "a transformer stored as %s computes what its values say",
  async (dtype) => {
    const file = model("transformer_2/diffusion_pytorch_model.safetensors");
    writeTensors(file, readTensors(file), dtype);
    const golden = readTensors(join(MODEL, "../goldens/transformer_2.safetensors"));
    const [latent, text] = ["shape0.hidden_states", "encoder_hidden_states"].map((name) => golden.get(name)!);
    const feeds = {
      latent: f32(latent!.shape, latent!.data),
      timestep: f32([1], Float32Array.of(500)),
      context: f32(text!.shape, text!.data),
    };
    const velocity = async (folder: string): Promise<Float32Array> => {
      await importModel(model("."), join(at, folder));
      const sessions = new BundleSessions(await openBundle(join(at, folder)));
      return (await sessions.run("denoiser.low", feeds))["velocity"]!.data as Float32Array;
    };
    const narrow = await velocity("narrow");
    // The same values, each written out in f32.
    writeTensors(file, readTensors(file), "f32");
    expect(largestDifference(narrow, await velocity("wide"))).toBeLessThan(1e-6);
  },
);

test("a folder of one transformer, as Wan2.1's are, becomes a model of one noise level", async () => {
  rmSync(model("transformer_2"), { recursive: true });
  edit("model_index.json", (json) => Object.assign(json, { transformer_2: [null, null], boundary_ratio: null }));
  await imported();
  const sessions = new BundleSessions(await openBundle(join(at, "bundle")));
  const { denoiser, variants, schedule } = sessions.bundle.manifest;
  expect(denoiser).toMatchObject({ gate: { kind: "timestep", from: [0] }, graphs: ["denoiser"] });
  expect(variants.standard).not.toHaveProperty("guidanceLow");
  // By its width it is like Wan2.1's smaller one.
  expect({ ...variants.standard, ...schedule }).toMatchObject({ steps: 50, guidance: 6, shift: 8, grid: "diffusers" });
  const golden = readTensors(join(MODEL, "../goldens/transformer.safetensors"));
  const [latent, text, wanted] = ["shape1.hidden_states", "encoder_hidden_states", "shape1.t880.output"].map((name) =>
    golden.get(name)!,
  );
  const { velocity } = await sessions.run("denoiser", {
    latent: f32(latent!.shape, latent!.data),
    timestep: f32([1], Float32Array.of(880)),
    context: f32(text!.shape, text!.data),
  });
  expect(largestDifference(velocity!.data as Float32Array, wanted!.data)).toBeLessThan(FORWARD);
});

test("weights not read in full have no hash until they are verified, and then one that is compared", async () => {
  await imported();
  expect((await openBundle(join(at, "bundle"))).unread).toHaveLength(6);
  await importModel(model("."), join(at, "bundle"), { verify: true });
  const bundle = await openBundle(join(at, "bundle"));
  expect(bundle.unread).toEqual([]);
  await bundle.verify();
  const file = model("vae/diffusion_pytorch_model.safetensors");
  const bytes = readFileSync(file);
  bytes[bytes.length - 1]! ^= 1;
  writeFileSync(file, bytes);
  await expect(bundle.verify()).rejects.toThrow(/vae\/diffusion_pytorch_model.safetensors has sha256|vae.*sha256/);
});

const INDEX = "transformer/diffusion_pytorch_model.safetensors.index.json";
const SHARD = "transformer/diffusion_pytorch_model-00001-of-00003.safetensors";
const mapOf = (json: Record<string, unknown>): Record<string, string> => json["weight_map"] as Record<string, string>;

test.each<[string, () => void, RegExp]>([
  [
    "weights that are a pickle",
    () => renameSync(model("text_encoder/model.safetensors"), model("text_encoder/pytorch_model.bin")),
    /pytorch_model\.bin: is a pickle/,
  ],
  [
    "a link that leaves the folder",
    () => {
      renameSync(model("vae/diffusion_pytorch_model.safetensors"), join(at, "outside.safetensors"));
      symlinkSync(join(at, "outside.safetensors"), model("vae/diffusion_pytorch_model.safetensors"));
    },
    /vae\/diffusion_pytorch_model\.safetensors: is a link to .*outside/,
  ],
  [
    "an index that names a file outside",
    () =>
      edit(INDEX, (json) => (mapOf(json)["proj_out.bias"] = "../transformer_2/diffusion_pytorch_model.safetensors")),
    /weight_map has "\.\.\/transformer_2.*" for "proj_out\.bias"/,
  ],
  [
    "an index that knows a tensor no file has",
    () => edit(INDEX, (json) => (mapOf(json)["ghost"] = SHARD.split("/")[1]!)),
    /tensor "ghost" is not in weights\/transformer/,
  ],
  [
    "a file with a tensor the index puts elsewhere",
    () => edit(INDEX, (json) => delete mapOf(json)["scale_shift_table"]),
    /tensor "scale_shift_table" is not listed/,
  ],
  ["a shard that is missing", () => rmSync(model(SHARD)), /00001-of-00003\.safetensors: is missing/],
  ["an index that is no index", () => writeFileSync(model(INDEX), "[]"), /weight_map is no object/],
  [
    "another pipeline",
    () => edit("model_index.json", (json) => (json["_class_name"] = "WanImageToVideoPipeline")),
    /_class_name is "WanImageToVideoPipeline", expected one of/,
  ],
  [
    "another text encoder",
    () => edit("model_index.json", (json) => (json["text_encoder"] = ["transformers", "T5EncoderModel"])),
    /text_encoder is .*T5EncoderModel.*UMT5EncoderModel/,
  ],
  [
    "a transformer's option that is not known",
    () => edit("transformer/config.json", (json) => (json["extra_heads"] = 2)),
    /extra_heads is 2, expected only the keys/,
  ],
  [
    "a scheduler that predicts noise",
    () => edit("scheduler/scheduler_config.json", (json) => (json["prediction_type"] = "epsilon")),
    /prediction_type is "epsilon", expected "flow_prediction"/,
  ],
  ["a folder without its tokenizer", () => rmSync(model("tokenizer/tokenizer.json")), /tokenizer\.json: is missing/],
])("refuses %s, and leaves nothing", async (_what, spoil, message) => {
  spoil();
  await expect(imported()).rejects.toThrow(message);
  expect(readdirSync(at).filter((name) => name !== "model" && name !== "outside.safetensors")).toEqual([]);
});

test("headers cut, swollen or turned at random are refused or read, never a crash of another kind", async () => {
  const file = model("vae/diffusion_pytorch_model.safetensors");
  const sound = readFileSync(file);
  const headerEnd = 8 + Number(sound.readBigUInt64LE(0));
  let refused = 0;
  for (let turn = 0; turn < 60; turn++) {
    const bytes = Buffer.from(sound);
    // Places spread over the header by a fixed stride, so that a failure shows itself again.
    const place = (turn * 7919) % headerEnd;
    bytes[place] = bytes[place]! ^ (1 << (turn % 8));
    writeFileSync(file, turn % 10 === 9 ? bytes.subarray(0, place) : bytes);
    const error: unknown = await imported().catch((thrown: unknown) => thrown);
    if (!(error instanceof Error)) continue;
    expect(error.name, error.stack).toMatch(/^(SafetensorsError|ConfigFileError|BundleError)$/);
    refused++;
  }
  expect(refused).toBeGreaterThan(40);
});

/** Values of every kind a JSON file may hold where another is expected. */
const ODD_VALUES = [null, true, -1, 0, 1e308, 2 ** 53, 0.5, "", "../../etc/passwd", "\u0000", [], [[]], {}, { a: {} }];

/** The JSON at `path` with, in turn, every key left out and every value swapped for odd ones. */
function* spoiltJson(text: string): Generator<string> {
  const sound = JSON.parse(text) as Record<string, unknown>;
  let turn = 0;
  for (const key of Object.keys(sound)) {
    const { [key]: _left, ...rest } = sound;
    yield JSON.stringify(rest);
    for (let k = 0; k < 3; k++) yield JSON.stringify({ ...sound, [key]: ODD_VALUES[(turn += 5) % ODD_VALUES.length] });
    const inner = Object.entries((sound[key] ?? {}) as Record<string, unknown>);
    for (const odd of ODD_VALUES)
      if (inner.length > 4)
        yield JSON.stringify({ ...sound, [key]: { ...Object.fromEntries(inner), [inner[turn++ % 4]![0]]: odd } });
  }
  for (const cut of [0, 1, text.length >> 1, text.length - 2]) yield text.slice(0, cut);
  yield "[".repeat(100_000);
  yield `{"a":${"[".repeat(50_000)}${"]".repeat(50_000)}}`;
}

test.each([
  "model_index.json",
  "transformer/config.json",
  INDEX,
  "text_encoder/config.json",
  "vae/config.json",
  "scheduler/scheduler_config.json",
])("%s spoilt in many ways is refused by name or read, and nothing is left of what was refused", async (path) => {
  const sound = readFileSync(model(path), "utf8");
  let refused = 0;
  for (const spoilt of spoiltJson(sound)) {
    writeFileSync(model(path), spoilt);
    const error: unknown = await imported().catch((thrown: unknown) => thrown);
    if (!(error instanceof Error)) {
      rmSync(join(at, "bundle"), { recursive: true });
      continue;
    }
    expect(error.name, `${spoilt.slice(0, 500)}\n${error.stack}`).toMatch(/^(SafetensorsError|ConfigFileError)$/);
    expect(readdirSync(at), spoilt.slice(0, 500)).toEqual(["model"]);
    refused++;
  }
  expect(refused).toBeGreaterThan(10);
});
