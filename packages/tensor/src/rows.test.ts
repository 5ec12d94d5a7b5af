// Row gathering against the obvious loop.
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { gatherRows } from "./rows.ts";

test("gathered rows equal the obvious loop, repeats and order kept", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 9 }),
      fc.integer({ min: 1, max: 7 }),
      fc.array(fc.nat(), { maxLength: 20 }),
      (rows, width, picks) => {
        const source = Float32Array.from({ length: rows * width }, (_, i) => i);
        const index = Uint32Array.from(picks, (pick) => pick % rows);
        const target = new Float32Array(index.length * width);
        gatherRows(source, width, index, target);
        const expected = [...index].flatMap((row) =>
          Array.from({ length: width }, (_, column) => row * width + column),
        );
        expect([...target]).toEqual(expected);
      },
    ),
  );
});

test("a row outside the matrix or a small target is refused", () => {
  expect(() => gatherRows(new Float32Array(4), 2, Uint32Array.of(2), new Float32Array(2))).toThrow(
    /row 2 of a matrix of 2 rows/,
  );
  expect(() => gatherRows(new Float32Array(4), 2, Uint32Array.of(0, 1), new Float32Array(2))).toThrow(/4 are needed/);
});
