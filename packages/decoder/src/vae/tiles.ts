// A picture decoded in overlapping tiles, for devices that have no room for it whole: where the tiles lie, and how their pictures become one.
// Off unless asked for: what a tile does not see of its neighbours shows, and flickers. Source: diffusers' AutoencoderKLWan.tiled_decode.
import type { TensorView } from "@moevie/runtime";

/** Neighbouring tiles begin this share of a side apart; the rest is blended in a straight line from one to the other. */
const STRIDE_SHARE = 0.75;

/** Tiles of a latent frame, in cells. */
export interface Tiles {
  readonly tops: readonly number[];
  readonly lefts: readonly number[];
  /** Cells a side, fewer at the right and bottom edges. */
  readonly side: number;
  readonly stride: number;
}

/** Tiles of `side` cells (a multiple of 4) over `height` by `width`; one that covers all when the picture is no larger than a tile. */
export function tilesOf(height: number, width: number, side: number): Tiles {
  if (side === 0 || (height <= side && width <= side))
    return { tops: [0], lefts: [0], side: Math.max(height, width), stride: Math.max(height, width) };
  const stride = side * STRIDE_SHARE;
  const starts = (size: number): number[] => Array.from({ length: Math.ceil(size / stride) }, (_, i) => i * stride);
  return { tops: starts(height), lefts: starts(width), side, stride };
}

/** `z` [1, channels, height, width] from (top, left) on, at most `side` cells each way. */
export function cutTile({ dims, data }: TensorView, top: number, left: number, side: number): TensorView {
  const [, channels, height, width] = dims as [number, number, number, number];
  const [rows, columns] = [Math.min(side, height - top), Math.min(side, width - left)];
  if (rows === height && columns === width) return { type: "float32", dims, data };
  const out = new Float32Array(channels * rows * columns);
  for (let line = 0; line < channels * rows; line++) {
    const from = (Math.floor(line / rows) * height + top + (line % rows)) * width + left;
    out.set((data as Float32Array).subarray(from, from + columns), line * columns);
  }
  return { type: "float32", dims: [1, channels, rows, columns], data: out };
}

/** Three planes [3, rows, columns] of one tile. */
export interface Picture {
  readonly planes: Float32Array;
  readonly rows: number;
  readonly columns: number;
}

/** Blends the last `extent` rows of `above` into the first of `below`, in place. */
function blendDown(above: Picture, below: Picture, extent: number): void {
  const rows = Math.min(extent, above.rows, below.rows);
  for (let plane = 0; plane < 3; plane++)
    for (let row = 0; row < rows; row++) {
      const [from, to] = [plane * above.rows + above.rows - rows + row, plane * below.rows + row];
      for (let column = 0; column < below.columns; column++) {
        const old = above.planes[from * above.columns + column] ?? 0;
        const at = to * below.columns + column;
        below.planes[at] = old * (1 - row / rows) + (below.planes[at] ?? 0) * (row / rows);
      }
    }
}

/** The same for the last columns of `left` and the first of `right`. */
function blendAcross(left: Picture, right: Picture, extent: number): void {
  const columns = Math.min(extent, left.columns, right.columns);
  for (let line = 0; line < 3 * right.rows; line++)
    for (let column = 0; column < columns; column++) {
      const old = left.planes[line * left.columns + left.columns - columns + column] ?? 0;
      const at = line * right.columns + column;
      right.planes[at] = old * (1 - column / columns) + (right.planes[at] ?? 0) * (column / columns);
    }
}

/**
 * One picture [3, height, width] of its tiles' pictures, row by row of tiles; `pixels`: pixels a side of a cell. The pictures are
 * written to.
 */
export function joined(
  pictures: readonly Picture[],
  { lefts, side, stride }: Tiles,
  pixels: number,
  { height, width }: { readonly height: number; readonly width: number },
): Float32Array {
  const [only] = pictures;
  if (pictures.length === 1 && only !== undefined) return only.planes;
  const out = new Float32Array(3 * height * width);
  const [kept, extent] = [stride * pixels, (side - stride) * pixels];
  for (const [index, picture] of pictures.entries()) {
    const [i, j] = [Math.floor(index / lefts.length), index % lefts.length];
    if (i > 0) blendDown(pictures[index - lefts.length]!, picture, extent);
    if (j > 0) blendAcross(pictures[index - 1]!, picture, extent);
    const [top, left] = [i * kept, j * kept];
    const columns = Math.min(kept, picture.columns);
    for (let plane = 0; plane < 3; plane++)
      for (let row = 0; row < Math.min(kept, picture.rows); row++) {
        const from = (plane * picture.rows + row) * picture.columns;
        out.set(picture.planes.subarray(from, from + columns), (plane * height + top + row) * width + left);
      }
  }
  return out;
}
