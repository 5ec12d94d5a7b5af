// Runs a bundle's graphs in this process, one thread, straight on the runtime: what the services do, without the services.
import { InferenceSession, Tensor } from "onnxruntime-node";
import type { Bundle } from "@moevie/bundle";
import type { Dense } from "./safetensors-file.ts";
import { tokenDenoiser } from "../support/token-denoiser.ts";

export type Feeds = Record<string, Tensor>;

export function f32(shape: readonly number[], data: Float32Array): Tensor {
  return new Tensor("float32", data, [...shape]);
}
export function i64(shape: readonly number[], data: ArrayLike<number>): Tensor {
  return new Tensor("int64", BigInt64Array.from(Array.from(data), BigInt), [...shape]);
}

/** A session of model bytes; its outside weights are named relative to "/", where this process then stands. */
export async function createSession(model: Uint8Array): Promise<InferenceSession> {
  process.chdir("/");
  return InferenceSession.create(model, { intraOpNumThreads: 1, interOpNumThreads: 1, executionProviders: ["cpu"] });
}

/** Sessions of a bundle, made on first use. */
export class BundleSessions {
  readonly bundle: Bundle;
  readonly #sessions = new Map<string, Promise<InferenceSession>>();
  constructor(bundle: Bundle) {
    this.bundle = bundle;
  }

  async #session(key: string, model: () => Promise<Uint8Array>): Promise<InferenceSession> {
    let session = this.#sessions.get(key);
    if (session === undefined) {
      session = model().then(createSession);
      this.#sessions.set(key, session);
    }
    return session;
  }

  async run(name: string, feeds: Feeds): Promise<Feeds> {
    const session = await this.#session(name, () => this.bundle.graph(name));
    return (await session.run(feeds)) as Feeds;
  }

  /** Bare answers of `experts` of one layer to `rows`, sorted by expert with `counts` rows each. */
  async experts(layer: number, experts: readonly number[], rows: Tensor, counts: readonly number[]): Promise<Tensor> {
    const session = await this.#session(`${layer}:${experts.join()}`, () => this.bundle.expertGraph(layer, experts));
    return (await session.run({ rows, counts: i64([counts.length], counts) }))["y"] as Tensor;
  }
}

/** Weighted sums [rows, width] of every row's experts, rows sorted by expert: dispatch, experts and combine in one place. */
async function runMoe(sessions: BundleSessions, layer: number, block: Feeds): Promise<Tensor> {
  const { experts, topK, hidden } = tokenDenoiser(sessions.bundle);
  const rows = block["rows"]!.data as Float32Array;
  const ids = block["expert_ids"]!.data as Int32Array;
  const weights = block["expert_weights"]!.data as Float32Array;
  const entries = Array.from(ids.keys()).sort((a, b) => ids[a]! - ids[b]! || a - b);
  const sorted = new Float32Array(entries.length * hidden);
  const counts = Array.from({ length: experts }, () => 0);
  for (const [at, entry] of entries.entries()) {
    const row = Math.floor(entry / topK);
    sorted.set(rows.subarray(row * hidden, (row + 1) * hidden), at * hidden);
    counts[ids[entry]!]!++;
  }
  const every = counts.map((_, id) => id);
  const answers = (await sessions.experts(layer, every, f32([entries.length, hidden], sorted), counts))
    .data as Float32Array;
  const out = new Float32Array(rows.length);
  for (const [at, entry] of entries.entries()) {
    const row = Math.floor(entry / topK);
    for (let i = 0; i < hidden; i++) out[row * hidden + i]! += weights[entry]! * answers[at * hidden + i]!;
  }
  return f32([rows.length / hidden, hidden], out);
}

export type Denoised = { velocity: Tensor; ids: Tensor[]; weights: Tensor[] };

/** The denoiser by its pieces: context, entry, blocks with experts between them, head; of the variant whose graphs begin with `graphs`. With the rows each gate saw. */
export async function runPieces(
  sessions: BundleSessions,
  latent: Dense,
  timestep: Float32Array,
  rows: Dense,
  origin = 0,
  graphs = "",
): Promise<Denoised & { readonly rows: readonly Tensor[] }> {
  const z = f32(latent.shape, latent.data);
  const { ctx, pooled } = (await sessions.run(`${graphs}context`, { rows: f32(rows.shape, rows.data) })) as {
    ctx: Tensor;
    pooled: Tensor;
  };
  const entry = await sessions.run(`${graphs}entry`, {
    latent: z,
    timestep: f32([timestep.length], timestep),
    pooled,
    origin: f32([1], Float32Array.of(origin)),
  });
  const common = { t_mod: entry["t_mod"]!, ctx, rope_cos: entry["rope_cos"]!, rope_sin: entry["rope_sin"]! };
  const ids: Tensor[] = [];
  const weights: Tensor[] = [];
  const seen: Tensor[] = [];
  let carried: Feeds = { x: entry["x"]! };
  for (let layer = 0; layer < tokenDenoiser(sessions.bundle).layers; layer++) {
    const block = await sessions.run(`${graphs}block.${layer}`, { ...common, ...carried });
    ids.push(block["expert_ids"]!);
    weights.push(block["expert_weights"]!);
    seen.push(block["rows"]!);
    carried = { x: block["x_out"]!, ffn_gate_in: block["ffn_gate"]!, moe: await runMoe(sessions, layer, block) };
  }
  const { velocity } = (await sessions.run(`${graphs}head`, { ...carried, temb: entry["temb"]!, latent: z })) as {
    velocity: Tensor;
  };
  return { velocity, ids, weights, rows: seen };
}

/** The same by the one graph. */
export async function runMonolith(
  sessions: BundleSessions,
  latent: Dense,
  timestep: Float32Array,
  rows: Dense,
  origin = 0,
  graphs = "",
): Promise<Denoised> {
  const out = await sessions.run(`${graphs}monolith`, {
    latent: f32(latent.shape, latent.data),
    timestep: f32([timestep.length], timestep),
    origin: f32([1], Float32Array.of(origin)),
    rows: f32(rows.shape, rows.data),
  });
  const layers = Array.from({ length: tokenDenoiser(sessions.bundle).layers }, (_, layer) => layer);
  return {
    velocity: out["velocity"]!,
    ids: layers.map((layer) => out[`ids.${layer}`]!),
    weights: layers.map((layer) => out[`weights.${layer}`]!),
  };
}

/** The caches a chunk leaves, as the next one takes them. */
export function carriedCaches(outputs: Feeds): Feeds {
  return Object.fromEntries(
    Object.entries(outputs)
      .filter(([name]) => name.startsWith("cache_out."))
      .map(([name, value]) => [name.replace("cache_out.", "cache."), value]),
  );
}

/** Largest absolute difference. */
export function largestDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) return Infinity;
  let most = 0;
  for (let i = 0; i < a.length; i++) most = Math.max(most, Math.abs(a[i]! - b[i]!));
  return most;
}

/** Largest absolute value: the scale differences are judged against. */
export function scaleOf(values: ArrayLike<number>): number {
  return largestDifference(values, new Float32Array(values.length));
}
