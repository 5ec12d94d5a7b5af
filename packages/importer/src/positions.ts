// Where a token lies and when it is: positions, rotary tables and time features as graph nodes. No weights.
// Tokens run over (frame, row, column), column fastest. Sources: Wan's rotary embedding; sinusoidal timestep embedding of diffusers.
import type { GraphBuilder, Name } from "./graph-builder.ts";

/** Position of every token on each axis, whole numbers in f32 [tokens, 1]. */
export type TokenGrid = { readonly axes: readonly [Name, Name, Name] };

/** The grid of `patches` [B, d, T, H, W], whose first frame is frame `origin` (f32 [1]) of the model's time. */
export function addTokenGrid(g: GraphBuilder, patches: Name, origin: Name): TokenGrid {
  const size = (axis: number): Name => g.op("Shape", [patches], { start: { int: axis }, end: { int: axis + 1 } });
  const [frames, height, width] = [size(2), size(3), size(4)];
  const area = g.mul(height, width);
  const index = g.op("Range", [g.i64(0), g.op("Squeeze", [g.mul(frames, area)]), g.i64(1)]);
  const column = (value: Name): Name => g.op("Unsqueeze", [g.op("Cast", [value], { to: { int: 1 } }), g.i64s([1])]);
  const t = g.op("Div", [index, area]);
  const y = g.op("Mod", [g.op("Div", [index, width]), height]);
  const x = g.op("Mod", [index, width]);
  return { axes: [g.add(column(t), origin), column(y), column(x)] };
}

/**
 * Normalised positions as features [tokens, features]: for each axis sin then cos of u * pi * 2^(6 j / (n - 1)), where u is 0 to 1
 * over the grid the model was trained on.
 */
export function addPositions(g: GraphBuilder, grid: TokenGrid, trainGrid: readonly number[], features: number): Name {
  const frequencies = features / 6;
  const octaves = Array.from({ length: frequencies }, (_, j) => Math.PI * 2 ** ((j * 6) / (frequencies - 1)));
  const parts: Name[] = [];
  for (const [axis, position] of grid.axes.entries()) {
    const unit = g.op("Div", [position, g.f32(Math.max(1, trainGrid[axis]! - 1))]);
    const phase = g.mul(unit, g.f32s(octaves, [1, frequencies]));
    parts.push(g.op("Sin", [phase]), g.op("Cos", [phase]));
  }
  return g.concat(parts, 1);
}

/** Rotary tables cos, sin [tokens, headWidth / 2]; the head is shared out to t, y, x as d - 4 [d/6], 2 [d/6], 2 [d/6]. */
export function addRotary(
  g: GraphBuilder,
  grid: TokenGrid,
  headWidth: number,
  theta: number,
): { cos: Name; sin: Name } {
  const side = 2 * Math.floor(headWidth / 6);
  const phases = [headWidth - 2 * side, side, side].map((share, axis) => {
    const frequencies = Array.from({ length: share / 2 }, (_, i) => theta ** ((-2 * i) / share));
    return g.mul(grid.axes[axis]!, g.f32s(frequencies, [1, share / 2]));
  });
  const phase = g.concat(phases, 1);
  return { cos: g.op("Cos", [phase]), sin: g.op("Sin", [phase]) };
}

/** timestep [B] -> [B, features], cosines then sines. */
export function addTimeFeatures(g: GraphBuilder, timestep: Name, features: number): Name {
  const half = features / 2;
  const frequencies = Array.from({ length: half }, (_, i) => Math.exp((-Math.log(10000) * i) / half));
  const phase = g.mul(g.op("Unsqueeze", [timestep, g.i64s([1])]), g.f32s(frequencies, [1, half]));
  return g.concat([g.op("Cos", [phase]), g.op("Sin", [phase])], 1);
}
