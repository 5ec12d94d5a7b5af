// Logarithm and sine made of + - * / and sqrt alone. The language fixes those to the last bit (IEEE 754, no fusing), but
// leaves Math.log, Math.sin and Math.cos to the engine; with these, a seed gives the same bits on every machine.
// Polynomials: FreeBSD msun e_log.c, k_sin.c, k_cos.c (Sun Microsystems, 1993). Errors below 1 unit in the last place of f64.

const LN2_HIGH = 6.9314718036912381649e-1;
const LN2_LOW = 1.90821492927058770002e-10;

const bits = new DataView(new ArrayBuffer(8));

/** Natural logarithm of a positive, normal, finite number. */
export function portableLog(x: number): number {
  if (!(x >= 2 ** -1022 && x < Infinity)) throw new RangeError(`portableLog of ${x}`);
  // x = 2^k m with m in [sqrt(1/2), sqrt(2)).
  bits.setFloat64(0, x);
  const high = bits.getUint32(0);
  let k = (high >>> 20) - 1023;
  bits.setUint32(0, (high & 0x000f_ffff) | 0x3ff0_0000);
  let m = bits.getFloat64(0);
  if (m >= Math.SQRT2) {
    m /= 2;
    k += 1;
  }
  const f = m - 1;
  const s = f / (2 + f);
  const z = s * s;
  const w = z * z;
  const odd = w * (0.3999999999940941908 + w * (0.2222219843214978396 + w * 0.1531383769920937332));
  const even =
    z * (0.666666666666673513 + w * (0.2857142874366239149 + w * (0.1818357216161805012 + w * 0.1479819860511658591)));
  const half = 0.5 * f * f;
  return k * LN2_HIGH - (half - (s * (half + odd + even) + k * LN2_LOW) - f);
}

/** sin(x), |x| <= pi / 4. */
function kernelSin(x: number): number {
  const z = x * x;
  const r =
    8.33333333332248946124e-3 +
    z *
      (-1.98412698298579493134e-4 +
        z * (2.75573137070700676789e-6 + z * (-2.50507602534068634195e-8 + z * 1.58969099521155010221e-10)));
  return x + z * x * (-1.66666666666666324348e-1 + z * r);
}

/** cos(x), |x| <= pi / 4. */
function kernelCos(x: number): number {
  const z = x * x;
  const r =
    z *
    (4.16666666666666019037e-2 +
      z *
        (-1.38888888888741095749e-3 +
          z *
            (2.48015872894767294178e-5 +
              z * (-2.75573143513906633035e-7 + z * (2.0875723212981748279e-9 + z * -1.13596475577881948265e-11)))));
  const half = 0.5 * z;
  const w = 1 - half;
  return w + (1 - w - half + z * r);
}

/** [cos, sin] of a whole turn times `turn`, 0 <= turn < 1. */
export function portableTurn(turn: number): readonly [number, number] {
  // The nearest quarter turn is taken away exactly: turn has few enough bits.
  const quarter = Math.floor(turn * 4 + 0.5);
  const angle = (turn - quarter / 4) * (2 * Math.PI);
  const c = kernelCos(angle);
  const s = kernelSin(angle);
  switch (quarter & 3) {
    case 0:
      return [c, s];
    case 1:
      return [-s, c];
    case 2:
      return [-c, -s];
    default:
      return [s, -c];
  }
}
