// Relative position buckets: what their definition promises for any size.
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { relativeBucket } from "./text-encoder.ts";

test("buckets grow with distance, stay in range, and keep the two directions apart", () => {
  fc.assert(
    fc.property(
      fc.constantFrom([32, 128], [16, 64], [8, 20]),
      fc.integer({ min: 0, max: 400 }),
      ([buckets, reach], distance) => {
        const back = relativeBucket(-distance, buckets!, reach!);
        expect(back).toBeLessThan(buckets! / 2);
        expect(relativeBucket(-distance - 1, buckets!, reach!)).toBeGreaterThanOrEqual(back);
        if (distance > 0) expect(relativeBucket(distance, buckets!, reach!)).toBe(back + buckets! / 2);
        if (distance < buckets! / 4) expect(back).toBe(distance);
        if (distance >= reach!) expect(back).toBe(buckets! / 2 - 1);
      },
    ),
  );
});
