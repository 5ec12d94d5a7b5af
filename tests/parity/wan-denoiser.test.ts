// Wan's transformer as our graph against what diffusers' gave, with the runtime's operators and without, inside and out.
import { join } from "node:path";
import type { InferenceSession } from "onnxruntime-node";
import { describe, expect, test } from "vitest";
import { openWeightFile, openWeightFolder, readConfigFile, wanDitGraph, wanDitSizes } from "@moevie/importer";
import { readTensors, type Dense } from "./safetensors-file.ts";
import { createSession, f32, largestDifference, type Feeds } from "./sessions.ts";

const HERE = join(import.meta.dirname, "wan");
const TIME = 1e-4;
const FORWARD = 1.5e-4;
/** What torch itself differs by when it computes in f16. */
const HALF = 0.009;
/** Timesteps of each that were recorded; the first is in three files, the second in one. */
const EXPERTS = { transformer: [999, 880], transformer_2: [857, 120] };
type Expert = keyof typeof EXPERTS;

async function denoiser(
  expert: Expert,
  options: Partial<Parameters<typeof wanDitGraph>[3]> = {},
): Promise<{ session: InferenceSession; golden: Map<string, Dense> }> {
  const folder = join(HERE, "model", expert);
  const weights = await openWeightFolder(folder, folder.slice(1), "diffusion_pytorch_model");
  const sizes = wanDitSizes(await readConfigFile(join(folder, "config.json")));
  const graph = wanDitGraph(expert, weights, sizes, { type: "f32", operators: "fused", ...options });
  weights.settle();
  return {
    session: await createSession(graph.encode()),
    golden: readTensors(join(HERE, "goldens", `${expert}.safetensors`)),
  };
}

async function run(
  session: InferenceSession,
  latent: Dense,
  timesteps: readonly number[],
  text: Dense,
): Promise<Feeds> {
  return (await session.run({
    latent: f32(latent.shape, latent.data),
    timestep: f32([timesteps.length], Float32Array.from(timesteps)),
    context: f32(text.shape, text.data),
  })) as Feeds;
}

const values = (outputs: Feeds, name = "velocity"): Float32Array => outputs[name]!.data as Float32Array;

for (const expert of Object.keys(EXPERTS) as Expert[]) {
  describe.each(["fused", "plain"] as const)(`${expert}, %s operators`, (operators) => {
    test("gives diffusers' velocity at every recorded shape and timestep", async () => {
      const { session, golden } = await denoiser(expert, { operators });
      const text = golden.get("encoder_hidden_states")!;
      for (const shape of ["shape0", "shape1"])
        for (const t of EXPERTS[expert]) {
          const answer = await run(session, golden.get(`${shape}.hidden_states`)!, [t], text);
          const wanted = golden.get(`${shape}.t${t}.output`)!;
          expect(answer["velocity"]!.dims).toEqual(wanted.shape);
          expect(largestDifference(values(answer), wanted.data)).toBeLessThan(FORWARD);
        }
    });
  });
}

test("every value between is diffusers'", async () => {
  const { session, golden } = await denoiser("transformer", { inner: true });
  const answer = await run(session, golden.get("shape0.hidden_states")!, [999], golden.get("encoder_hidden_states")!);
  const prefix = "shape0.t999.inner.";
  const names = [...golden.keys()].filter((name) => name.startsWith(prefix) && !name.includes("rope"));
  expect(names.length).toBe(14);
  for (const name of names) {
    const inner = name.slice(prefix.length);
    const difference = largestDifference(values(answer, `inner.${inner}`), golden.get(name)!.data);
    expect(difference, inner).toBeLessThan(inner === "time_sincos" ? TIME : FORWARD);
  }
});

test("a batch of two texts and times, inputs so small that a wrong epsilon shows, and a time between", async () => {
  const { session, golden } = await denoiser("transformer");
  for (const at of ["batched", "small_input", "fractional"]) {
    const latent = golden.get(`${at}.hidden_states`) ?? golden.get("shape1.hidden_states")!;
    const text = golden.get(`${at}.encoder_hidden_states`) ?? golden.get("encoder_hidden_states")!;
    const timesteps = Array.from(golden.get(`${at}.timestep`)!.data, Number);
    const answer = await run(session, latent, timesteps, text);
    expect(largestDifference(values(answer), golden.get(`${at}.output`)!.data), at).toBeLessThan(FORWARD);
  }
});

test("computing in f16 stays as close as torch does in f16", async () => {
  const { session, golden } = await denoiser("transformer", { type: "f16" });
  const answer = await run(session, golden.get("shape0.hidden_states")!, [999], golden.get("encoder_hidden_states")!);
  const difference = largestDifference(values(answer), golden.get("shape0.t999.output")!.data);
  expect(difference).toBeGreaterThan(0);
  expect(difference).toBeLessThan(HALF);
});

test("tensors missing, misshapen and left over are told by name, all at once", async () => {
  const folder = join(HERE, "model", "transformer");
  const config = await readConfigFile(join(folder, "config.json"));
  const file = join(folder, "diffusion_pytorch_model-00002-of-00003.safetensors");
  const weights = await openWeightFile(file, "weights/one.safetensors");
  wanDitGraph(
    "denoiser",
    weights,
    { ...wanDitSizes(config), textWidth: 31, layers: 0 },
    { type: "f32", operators: "fused" },
  );
  expect(() => weights.settle()).toThrow(
    /missing: "patch_embedding.weight", .*; of another shape: .*text_embedder.linear_1.weight" \[24, 32\], expected \[24, 31\]; not of this architecture: "blocks.0.attn1/,
  );
});
