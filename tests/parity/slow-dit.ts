// The transformer with token experts in plain loops and float64: the readable reference every graph is compared with.
// One sample at a time, no caches, nothing clever. Formulas: diffusers' WanTransformer3DModel and docs on the starter model.
import type { Dense } from "./safetensors-file.ts";
import type { TinySizes } from "./tiny.ts";

type Row = number[];
type Matrix = Row[];
type Weights = ReadonlyMap<string, Dense>;
export type SlowResult = { velocity: number[]; ids: number[][][]; weights: number[][][] };

const dot = (a: ArrayLike<number>, b: ArrayLike<number>): number => {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum;
};
const silu = (v: number): number => v / (1 + Math.exp(-v));
const gelu = (v: number): number => 0.5 * v * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (v + 0.044715 * v ** 3)));
const plus = (a: Row, b: Row): Row => a.map((v, i) => v + b[i]!);

class SlowDit {
  readonly #weights: Weights;
  readonly #sizes: TinySizes;
  constructor(weights: Weights, sizes: TinySizes) {
    this.#weights = weights;
    this.#sizes = sizes;
  }

  data(name: string): Float32Array {
    return this.#weights.get(name)!.data;
  }

  linear(name: string, x: Row, bias = true): Row {
    const weight = this.data(`${name}.weight`);
    const offset = bias ? this.data(`${name}.bias`) : undefined;
    return Array.from(
      { length: weight.length / x.length },
      (_, o) => dot(x, weight.subarray(o * x.length, (o + 1) * x.length)) + (offset?.[o] ?? 0),
    );
  }

  layerNorm(x: Row): Row {
    const mean = x.reduce((a, b) => a + b, 0) / x.length;
    const variance = x.reduce((a, b) => a + (b - mean) ** 2, 0) / x.length;
    return x.map((v) => (v - mean) / Math.sqrt(variance + 1e-6));
  }

  rmsNorm(name: string, x: Row): Row {
    const scale = this.data(`${name}.weight`);
    const rms = Math.sqrt(dot(x, x) / x.length + 1e-6);
    return x.map((v, i) => (v / rms) * scale[i]!);
  }

  /** Pairs (2i, 2i + 1) of every head turned by the token's angles. */
  rotate(x: Row, angles: Row): Row {
    const out = [...x];
    for (let i = 0; i < x.length; i += 2) {
      const angle = angles[(i / 2) % angles.length]!;
      out[i] = x[i]! * Math.cos(angle) - x[i + 1]! * Math.sin(angle);
      out[i + 1] = x[i]! * Math.sin(angle) + x[i + 1]! * Math.cos(angle);
    }
    return out;
  }

  attention(at: string, from: Matrix, to: Matrix, angles?: Matrix): Matrix {
    const { width, heads } = this.#sizes;
    const size = width / heads;
    const turn = (rows: Matrix): Matrix =>
      angles === undefined ? rows : rows.map((row, n) => this.rotate(row, angles[n]!));
    const q = turn(from.map((row) => this.rmsNorm(`${at}.norm_q`, this.linear(`${at}.to_q`, row))));
    const k = turn(to.map((row) => this.rmsNorm(`${at}.norm_k`, this.linear(`${at}.to_k`, row))));
    const v = to.map((row) => this.linear(`${at}.to_v`, row));
    return q.map((query) => {
      const mixed: Row = [];
      for (let head = 0; head < heads; head++) {
        const part = (row: Row): Row => row.slice(head * size, (head + 1) * size);
        const scores = k.map((key) => dot(part(query), part(key)) / Math.sqrt(size));
        const most = Math.max(...scores);
        const shares = scores.map((score) => Math.exp(score - most));
        const total = shares.reduce((a, b) => a + b, 0);
        for (let i = 0; i < size; i++)
          mixed.push(v.reduce((sum, value, n) => sum + (shares[n]! / total) * value[head * size + i]!, 0));
      }
      return this.linear(`${at}.to_out.0`, mixed);
    });
  }

  /** Softmax, best `topK` (ties to the lower id), weights renormalised. */
  gate(block: number, row: Row): { ids: number[]; weights: number[] } {
    const logits = this.linear(`blocks.${block}.ffn.gate`, row, false);
    const most = Math.max(...logits);
    const scores = logits.map((logit) => Math.exp(logit - most));
    const ids = scores
      .map((_, id) => id)
      .sort((a, b) => scores[b]! - scores[a]! || a - b)
      .slice(0, this.#sizes.topK);
    const total = ids.reduce((sum, id) => sum + scores[id]!, 0);
    return { ids, weights: ids.map((id) => scores[id]! / total) };
  }

  expert(block: number, id: number, row: Row): Row {
    const { width, expertHidden } = this.#sizes;
    const at = `blocks.${block}.ffn.experts`;
    const layer = (name: string, x: Row, out: number): Row => {
      const w = this.data(`${at}.w${name}`).subarray(id * out * x.length, (id + 1) * out * x.length);
      const b = this.data(`${at}.b${name}`).subarray(id * out, (id + 1) * out);
      return Array.from({ length: out }, (_, o) => dot(x, w.subarray(o * x.length, (o + 1) * x.length)) + b[o]!);
    };
    return layer(
      "2",
      layer("1", row, expertHidden).map((v) => Math.max(0, v)),
      width,
    );
  }

  conditions(timestep: number, rows: Matrix): { ctx: Matrix; temb: Row; tMod: Matrix } {
    const at = "condition_embedder";
    const used = rows.filter((row) => row.some((v) => v !== 0)).length;
    const mean = rows[0]!.map((_, i) => rows.reduce((sum, row) => sum + row[i]!, 0) / Math.max(1, used));
    const rms = Math.max(Math.sqrt(dot(mean, mean) / mean.length), 1e-6);
    const phases = Array.from({ length: 128 }, (_, i) => timestep * Math.exp((-Math.log(10000) * i) / 128));
    const features = [...phases.map(Math.cos), ...phases.map(Math.sin)];
    const time = this.linear(
      `${at}.time_embedder.linear_2`,
      this.linear(`${at}.time_embedder.linear_1`, features).map(silu),
    );
    const temb = plus(
      time,
      this.linear(
        `${at}.pooled_embedder`,
        mean.map((v) => v / rms),
      ),
    );
    const flat = this.linear(`${at}.time_proj`, temb.map(silu));
    const { width } = this.#sizes;
    const tMod = Array.from({ length: 6 }, (_, i) => flat.slice(i * width, (i + 1) * width));
    const ctx = rows.map((row) =>
      this.linear(`${at}.text_embedder.linear_2`, this.linear(`${at}.text_embedder.linear_1`, row).map(gelu)),
    );
    return { ctx, temb, tMod };
  }

  /** Row `index` of the table `name` plus a modulation row. */
  modulation(name: string, index: number, extra: Row): Row {
    return extra.map((v, i) => v + this.data(name)[index * extra.length + i]!);
  }
}

/** Rotary angles of token (t, y, x). */
function rotaryAngles(position: readonly number[], headWidth: number): Row {
  const side = 2 * Math.floor(headWidth / 6);
  return [headWidth - 2 * side, side, side].flatMap((share, axis) =>
    Array.from({ length: share / 2 }, (_, i) => position[axis]! * 10000 ** ((-2 * i) / share)),
  );
}

function positionFeatures(position: readonly number[], trainGrid: readonly number[]): Row {
  return position.flatMap((index, axis) => {
    const phases = Array.from(
      { length: 16 },
      (_, j) => (index / Math.max(1, trainGrid[axis]! - 1)) * Math.PI * 2 ** ((j * 6) / 15),
    );
    return [...phases.map(Math.sin), ...phases.map(Math.cos)];
  });
}

/** Latent cells of a token, from its first. */
const CORNERS = [
  [0, 0],
  [0, 1],
  [1, 0],
  [1, 1],
] as const;

/** Velocity [C, T, h, w] of one sample and each block's choices by token. */
export function slowDit(
  weights: Weights,
  sizes: TinySizes,
  latent: Dense,
  timestep: number,
  rows: Matrix,
  origin = 0,
): SlowResult {
  const dit = new SlowDit(weights, sizes);
  const [channels, frames, height, width] = latent.shape.slice(-4) as [number, number, number, number];
  const trainGrid = [(sizes.frames + 3) / 4, sizes.pixelHeight / 16, sizes.pixelWidth / 16];
  const cell = (c: number, t: number, y: number, x: number): number => ((c * frames + t) * height + y) * width + x;
  const positions: number[][] = [];
  for (let t = 0; t < frames; t++)
    for (let y = 0; y < height / 2; y++) for (let x = 0; x < width / 2; x++) positions.push([t, y, x]);
  const places = positions.map(([t, ...place]) => [t! + origin, ...place]);
  let x = positions.map(([t, y, column], n) => {
    const patch: Row = [];
    for (let c = 0; c < channels; c++)
      for (const [dy, dx] of CORNERS) patch.push(latent.data[cell(c, t!, 2 * y! + dy, 2 * column! + dx)]!);
    return plus(
      dit.linear("patch_embedding", patch),
      dit.linear("pos_embedding", positionFeatures(places[n]!, trainGrid)),
    );
  });
  const angles = places.map((position) => rotaryAngles(position, sizes.width / sizes.heads));
  const { ctx, temb, tMod } = dit.conditions(timestep, rows);
  const result: SlowResult = { velocity: [], ids: [], weights: [] };
  for (let block = 0; block < sizes.layers; block++) {
    const at = `blocks.${block}`;
    const [shiftSa, scaleSa, gateSa, shiftFf, scaleFf, gateFf] = tMod.map((row, i) =>
      dit.modulation(`${at}.scale_shift_table`, i, row),
    ) as [Row, Row, Row, Row, Row, Row];
    const modulate = (row: Row, scale: Row, shift: Row): Row => row.map((v, i) => v * (1 + scale[i]!) + shift[i]!);
    const h = x.map((row) => modulate(dit.layerNorm(row), scaleSa, shiftSa));
    const self = dit.attention(`${at}.attn1`, h, h, angles);
    x = x.map((row, n) => row.map((v, i) => v + gateSa[i]! * self[n]![i]!));
    const affine = (row: Row): Row =>
      dit.layerNorm(row).map((v, i) => v * dit.data(`${at}.norm2.weight`)[i]! + dit.data(`${at}.norm2.bias`)[i]!);
    const cross = dit.attention(`${at}.attn2`, x.map(affine), ctx);
    x = x.map((row, n) => plus(row, cross[n]!));
    const inputs = x.map((row) => modulate(dit.layerNorm(row), scaleFf, shiftFf));
    const choices = inputs.map((row) => dit.gate(block, row));
    x = x.map((row, n) => {
      const { ids, weights: shares } = choices[n]!;
      const answers = ids.map((id) => dit.expert(block, id, inputs[n]!));
      return row.map((v, i) => v + gateFf[i]! * answers.reduce((sum, answer, j) => sum + shares[j]! * answer[i]!, 0));
    });
    result.ids.push(choices.map((choice) => choice.ids));
    result.weights.push(choices.map((choice) => choice.weights));
  }
  const [shift, scale] = [0, 1].map((i) => dit.modulation("scale_shift_table", i, temb)) as [Row, Row];
  result.velocity = Array.from({ length: latent.data.length }, () => 0);
  for (const [n, [t, y, column]] of positions.entries()) {
    const out = dit.linear(
      "proj_out",
      dit.layerNorm(x[n]!).map((v, i) => v * (1 + scale[i]!) + shift[i]!),
    );
    for (const [corner, [dy, dx]] of CORNERS.entries()) {
      for (let c = 0; c < channels; c++)
        result.velocity[cell(c, t!, 2 * y! + dy, 2 * column! + dx)] = out[corner * channels + c]!;
    }
  }
  return result;
}
