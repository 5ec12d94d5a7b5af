// What the decoder's and the upsampler's graphs are made of: convolutions named by their weights, shuffles, residuals.
import type { GraphBuilder, Name } from "./graph-builder.ts";
import type { Weights } from "./weights.ts";

/** `name`.weight [out, in, k, k] and `name`.bias over [n, in, h, w], the size kept. */
export function conv(g: GraphBuilder, weights: Weights, name: string, value: Name): Name {
  const kernel = weights.tensor(`${name}.weight`).shape.at(-1)!;
  const pad = (kernel - 1) / 2;
  return g.op("Conv", [value, g.weight(weights, `${name}.weight`), g.weight(weights, `${name}.bias`)], {
    kernel_shape: { ints: [kernel, kernel] },
    pads: { ints: [pad, pad, pad, pad] },
  });
}

/** [n, c * factor², h, w] to [n, c, factor * h, factor * w]. */
export function pixelShuffle(g: GraphBuilder, value: Name, factor: number): Name {
  return g.op("DepthToSpace", [value], { blocksize: { int: factor }, mode: { text: "CRD" } });
}

/** value + b(silu(a(silu(value)))). */
export function residual(g: GraphBuilder, weights: Weights, a: string, b: string, value: Name): Name {
  return g.add(value, conv(g, weights, b, g.silu(conv(g, weights, a, g.silu(value)))));
}
