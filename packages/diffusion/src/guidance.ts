// Classifier-free guidance: the one place where the two branches of a step meet. Pure.

/**
 * out = unconditional + scale * (conditional - unconditional), elementwise in f64, rounded once to f32.
 * All three have the latent's shape; `out` may be one of the inputs. Values from `start` to before `end`.
 */
export function guide(
  conditional: Float32Array,
  unconditional: Float32Array,
  scale: number,
  out: Float32Array,
  start: number = 0,
  end: number = out.length,
): void {
  if (conditional.length !== unconditional.length || out.length !== conditional.length) {
    throw new RangeError(
      `guide: ${conditional.length}, ${unconditional.length} and ${out.length} values, expected equal counts`,
    );
  }
  for (let i = start; i < end; i++) {
    const base = unconditional[i] ?? 0;
    out[i] = base + scale * ((conditional[i] ?? 0) - base);
  }
}
