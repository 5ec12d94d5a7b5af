// Pairs rows with columns so that pairs score high. Pure.

/** For each row of a `size` × `size` table its column: the best pair first, of equal ones the lowest row, then the lowest column. */
export function match(size: number, score: (row: number, column: number) => number): Int32Array {
  const pairs: { row: number; column: number; score: number }[] = [];
  for (let row = 0; row < size; row++) {
    for (let column = 0; column < size; column++) pairs.push({ row, column, score: score(row, column) });
  }
  pairs.sort((a, b) => b.score - a.score);
  const columnOf = new Int32Array(size).fill(-1);
  const taken = new Uint8Array(size);
  for (const { row, column } of pairs) {
    if (columnOf[row] !== -1 || taken[column] === 1) continue;
    columnOf[row] = column;
    taken[column] = 1;
  }
  return columnOf;
}
