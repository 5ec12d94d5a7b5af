// Decoder output to bytes. Pure.

/**
 * One frame of planes [3, height, width] in [-1, 1], starting at element `offset`, as interleaved bytes [height, width, 3].
 * Values outside are clamped; NaN is black.
 */
export function toRgb(planes: Float32Array, offset: number, width: number, height: number): Uint8Array {
  const pixels = width * height;
  const out = new Uint8ClampedArray(pixels * 3);
  for (let plane = 0; plane < 3; plane++) {
    const base = offset + plane * pixels;
    // A Uint8ClampedArray clamps and rounds to nearest.
    for (let i = 0; i < pixels; i++) out[i * 3 + plane] = ((planes[base + i] ?? 0) + 1) * 127.5;
  }
  return new Uint8Array(out.buffer);
}
