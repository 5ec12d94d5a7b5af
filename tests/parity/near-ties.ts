// The slow reference of the gate: scores in doubles from a block's rows and the gate's weights. Says how many choices are so near that two
// correct implementations may make them differently, and how many others are wrong.
import type { Dense } from "./safetensors-file.ts";

/** Of softmax scores: a choice decided by less may fall either way. */
export const MARGIN = 1e-5;

export interface Choices {
  /** Rows whose last chosen and first not chosen expert differ by less than the margin. */
  readonly near: number;
  /** Others whose experts are not those chosen. */
  readonly wrong: number;
}

/** Compares `ids` [rows, topK] with what `gate` [experts, width] makes of `rows` [rows, width]. */
export function judgeChoices(rows: Float32Array, ids: Int32Array, gate: Dense, topK: number): Choices {
  const [, width = 1] = gate.shape;
  let [near, wrong] = [0, 0];
  for (let row = 0; row * width < rows.length; row++) {
    const scores = scoresOf(rows.subarray(row * width, (row + 1) * width), gate);
    const order = [...scores.keys()].sort((a, b) => (scores[b] ?? 0) - (scores[a] ?? 0) || a - b);
    const [last = 0, next = 0] = [order[topK - 1], order[topK]];
    const chosen = new Set(ids.subarray(row * topK, (row + 1) * topK));
    if ((scores[last] ?? 0) - (scores[next] ?? 0) < MARGIN) near++;
    else if (order.slice(0, topK).some((expert) => !chosen.has(expert))) wrong++;
  }
  return { near, wrong };
}

/** Softmax over experts. */
function scoresOf(row: Float32Array, { shape: [experts = 0], data }: Dense): number[] {
  const logits = Array.from({ length: experts }, (_, expert) =>
    row.reduce((sum, value, i) => sum + value * (data[expert * row.length + i] ?? 0), 0),
  );
  const most = Math.max(...logits);
  const powers = logits.map((logit) => Math.exp(logit - most));
  const total = powers.reduce((a, b) => a + b);
  return powers.map((power) => power / total);
}
