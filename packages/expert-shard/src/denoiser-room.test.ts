// What an evaluation of a whole denoiser is taken to need, against what was measured, and what is refused.
import { expect, test } from "vitest";
import { DenoiserRoom } from "./denoiser-room.ts";

const denoiser = (width?: number, innerWidth?: number): ConstructorParameters<typeof DenoiserRoom>[0] => ({
  patch: [1, 2, 2],
  gate: { kind: "timestep", from: [0] },
  graphs: ["denoiser"],
  ...(width === undefined ? {} : { width }),
  ...(innerWidth === undefined ? {} : { innerWidth }),
});

/** Of a latent with so many tokens, in bytes. */
function estimate(width: number, innerWidth: number, tokens: number): number {
  try {
    new DenoiserRoom(denoiser(width, innerWidth), () => ({ free: 0, own: 0 })).check([16, tokens, 2, 2], 0);
  } catch (thrown) {
    return Number(/takes about (\d+) bytes/.exec(String(thrown))?.[1]);
  }
  return 0;
}

// Growth of the largest size of a process from a first evaluation of one token to one of so many, docs/decisions/denoiser-memory.md.
test.each([
  [256, 512, 4096, 39e6],
  [256, 1024, 4096, 65e6],
  [256, 2048, 4096, 97e6],
  [1024, 2765, 4096, 134e6],
  [1536, 8960, 4096, 473e6],
])("width %i, inner width %i, %i tokens: not less than what was measured, and not twice as much", (...measured) => {
  const [width, innerWidth, tokens, bytes] = measured;
  const asked = estimate(width, innerWidth, tokens);
  expect(asked).toBeGreaterThanOrEqual(bytes);
  expect(asked).toBeLessThan(2 * bytes);
});

test("an evaluation fits up to what is free and what earlier ones left; weights are no room", () => {
  const room = new DenoiserRoom(denoiser(1000, 0), () => ({ free: 32_000, own: 1_096_000 }));
  expect(() => room.check([16, 4, 2, 2], 1_000_000)).not.toThrow();
  expect(() => room.check([16, 5, 2, 2], 1_000_000)).toThrow(
    "An evaluation of 5 tokens takes about 160000 bytes; this shard could have 128000 at most.",
  );
  expect(() => room.check([16, 2, 2, 2], 9_000_000)).toThrow("could have 32000 at most");
});

test("what memory there is, is not known of other devices, nor what a bundle of old takes: nothing is refused", () => {
  new DenoiserRoom(denoiser(1000, 4000), () => ({ free: Infinity, own: 0 })).check([16, 1_000_000, 90, 160], 0);
  new DenoiserRoom(denoiser(), () => ({ free: 0, own: 0 })).check([16, 1_000_000, 90, 160], 0);
});
