// What colour pictures are, cell by cell: the one measure that both cast and flicker are judged by. Pure.

/** Pixels a side that one cell spans, and the picture's size in pixels; both sides are whole numbers of cells. */
export interface CellGrid {
  readonly width: number;
  readonly height: number;
  readonly perCell: number;
}

/** RGB bytes [height, width, 3] to mean levels, 0 to 255: [3, cells]. */
export function cellMeans(rgb: Uint8Array, { width, height, perCell }: CellGrid): Float32Array {
  const columns = width / perCell;
  const cells = columns * (height / perCell);
  const means = new Float32Array(3 * cells);
  for (let y = 0; y < height; y++) {
    const row = Math.floor(y / perCell) * columns;
    let at = y * width * 3;
    for (let column = 0; column < columns; column++) {
      let [red, green, blue] = [0, 0, 0];
      for (const end = at + perCell * 3; at < end; at += 3) {
        red += rgb[at] ?? 0;
        green += rgb[at + 1] ?? 0;
        blue += rgb[at + 2] ?? 0;
      }
      const cell = row + column;
      means[cell]! += red;
      means[cells + cell]! += green;
      means[2 * cells + cell]! += blue;
    }
  }
  const pixels = perCell * perCell;
  for (let i = 0; i < means.length; i++) means[i]! /= pixels;
  return means;
}

/** The middle value; sorts `values`. NaN when there are none. */
export function medianOf(values: Float32Array): number {
  return values.toSorted()[Math.floor(values.length / 2)] ?? Number.NaN;
}
