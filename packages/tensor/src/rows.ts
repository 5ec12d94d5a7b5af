// Picks rows out of a matrix. Pure; the one copy an exchange cannot avoid.

/**
 * Copies row `rowIndex[i]` of `source` [rows, width] to row `i` of `target` [rowIndex.length, width].
 * Throws RangeError when an index is outside `source` or `target` is too small.
 */
export function gatherRows(source: Float32Array, width: number, rowIndex: Uint32Array, target: Float32Array): void {
  if (target.length < rowIndex.length * width) {
    throw new RangeError(`target holds ${target.length} values, ${rowIndex.length * width} are needed`);
  }
  const rows = Math.floor(source.length / width);
  for (let i = 0; i < rowIndex.length; i++) {
    const row = rowIndex[i]!;
    if (row >= rows) throw new RangeError(`row ${row} of a matrix of ${rows} rows`);
    target.set(source.subarray(row * width, (row + 1) * width), i * width);
  }
}
