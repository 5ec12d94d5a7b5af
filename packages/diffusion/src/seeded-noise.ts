// The first latent of a job: standard normal noise that a seed fixes to the last bit on every machine. Pure.
// Element i takes half of a Box-Muller pair from Philox block floor(i / 4), key = seed: no order, no state, any slice alone.
import { philox4x32 } from "./philox.ts";
import { portableLog, portableTurn } from "./portable-math.ts";

const WORD = 2 ** 32;
const BLOCK = 4;

/** Two standard normal values from two words: u1 in (0, 1), u2 in [0, 1) as a part of a turn. */
function normalPair(radiusWord: number, angleWord: number): readonly [number, number] {
  const radius = Math.sqrt(-2 * portableLog((radiusWord + 0.5) / WORD));
  const [c, s] = portableTurn(angleWord / WORD);
  return [radius * c, radius * s];
}

/**
 * Standard normal values of `shape`, f64 rounded once to f32. `seed` is 0 to 2^64 - 1 (a number: to 2^53 - 1).
 * Guaranteed: the same bits for the same seed and element index on every machine and engine. Throws RangeError.
 */
export function seededNoise(seed: bigint | number, shape: readonly number[]): Float32Array {
  const noise = new Float32Array(shape.reduce((product, size) => product * size, 1));
  fillNoise(seed, noise);
  return noise;
}

/** Writes the noise of `seed` at the elements from `start`, a multiple of 4, to before `end`. Throws RangeError. */
export function fillNoise(
  seed: bigint | number,
  noise: Float32Array,
  start: number = 0,
  end: number = noise.length,
): void {
  const wide = BigInt(seed);
  if (start % BLOCK !== 0) throw new RangeError(`noise from element ${start}, expected a multiple of ${BLOCK}`);
  if (wide < 0n || wide >= 1n << 64n) throw new RangeError(`seed ${wide}, expected 0 to 2^64 - 1`);
  const key = [Number(wide & 0xffff_ffffn), Number(wide >> 32n)] as const;
  const words = new Uint32Array(BLOCK);
  for (let at = start; at < end; at += BLOCK) {
    const block = at / BLOCK;
    philox4x32([block >>> 0, Math.floor(block / WORD), 0, 0], key, words);
    const values = [...normalPair(words[0] ?? 0, words[1] ?? 0), ...normalPair(words[2] ?? 0, words[3] ?? 0)];
    for (let i = 0; i < BLOCK && at + i < end; i++) noise[at + i] = values[i] ?? 0;
  }
}
