// The generator against its published vectors; the noise against frozen bits, its definition and its moments.
import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import { philox4x32 } from "./philox.ts";
import { portableLog, portableTurn } from "./portable-math.ts";
import { seededNoise } from "./seeded-noise.ts";

describe("philox4x32", () => {
  // kat_vectors of Random123, lines "philox4x32 10".
  const vectors: [[number, number, number, number], [number, number], number[]][] = [
    [
      [0, 0, 0, 0],
      [0, 0],
      [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8],
    ],
    [
      [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff],
      [0xffffffff, 0xffffffff],
      [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd],
    ],
    [
      [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
      [0xa4093822, 0x299f31d0],
      [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
    ],
  ];
  for (const [counter, key, expected] of vectors) {
    it(`gives the published block for counter ${counter.map((word) => word.toString(16)).join(" ")}`, () => {
      const out = new Uint32Array(4);
      philox4x32(counter, key, out);
      expect([...out]).toEqual(expected);
    });
  }
});

/** The comparison value takes cos of an angle up to 2 pi that is itself rounded: half a unit in the last place there, twice. */
const ANGLE_ROUNDING = 2 ** -49;

describe("portable math", () => {
  it("stays within two units in the last place of the engine's functions", () => {
    for (let i = 0; i < 20_000; i++) {
      const u = (i + 0.5) / 20_000;
      expect(Math.abs(portableLog(u) - Math.log(u))).toBeLessThanOrEqual(
        2 ** -51 * Math.max(Math.abs(Math.log(u)), 2 ** -52),
      );
      const [c, s] = portableTurn(i / 20_000);
      expect(Math.abs(c - Math.cos((2 * Math.PI * i) / 20_000))).toBeLessThan(ANGLE_ROUNDING);
      expect(Math.abs(s - Math.sin((2 * Math.PI * i) / 20_000))).toBeLessThan(ANGLE_ROUNDING);
    }
    expect(portableLog(1)).toBe(0);
  });
});

describe("seededNoise", () => {
  it("is the same bits on every machine", () => {
    const noise = seededNoise(42, [24, 5, 10, 18]);
    const littleEndian = Buffer.alloc(noise.length * 4);
    noise.forEach((value, i) => littleEndian.writeFloatLE(value, i * 4));
    expect(createHash("sha256").update(littleEndian).digest("hex")).toMatchInlineSnapshot(
      `"4fbec065cf50c04c5f829ddec7c3a592a54ea11ae29e526200cf841156b34eeb"`,
    );
  });

  it("is Box-Muller over Philox words in element order", () => {
    const words = new Uint32Array(4);
    philox4x32([1, 0, 0, 0], [7, 2 ** 21 - 1], words);
    const [w0 = 0, w1 = 0] = words;
    const radius = Math.sqrt(-2 * Math.log((w0 + 0.5) / 2 ** 32));
    const noise = seededNoise(BigInt(2 ** 21 - 1) * 2n ** 32n + 7n, [6]);
    expect(noise[4]).toBeCloseTo(radius * Math.cos((2 * Math.PI * w1) / 2 ** 32), 6);
    expect(noise[5]).toBeCloseTo(radius * Math.sin((2 * Math.PI * w1) / 2 ** 32), 6);
  });

  it("has the moments of a standard normal", () => {
    const noise = seededNoise(2n ** 53n - 1n, [40_000]);
    const mean = noise.reduce((sum, value) => sum + value, 0) / noise.length;
    const variance = noise.reduce((sum, value) => sum + (value - mean) ** 2, 0) / noise.length;
    expect(Math.abs(mean)).toBeLessThan(0.02);
    expect(Math.abs(variance - 1)).toBeLessThan(0.03);
  });

  it("does not depend on how much is asked for, and differs by seed", () => {
    expect(seededNoise(5, [7])).toEqual(seededNoise(5, [3, 5]).slice(0, 7));
    expect(seededNoise(5, [7])).not.toEqual(seededNoise(6, [7]));
    expect(() => seededNoise(-1, [1])).toThrow(RangeError);
  });
});
