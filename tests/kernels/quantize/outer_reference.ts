// CPU reference of the product that quantization is made of.
import type { BoundedProduct } from "../../../kernels/matrix/bounded_product.ts";

/**
 * CPU reference, in f64, for c that was zero: each of the k terms and the scaling add one rounding of the sum so far.
 *
 * @param a f32 [k, m]
 * @param b f32 [k, n]
 * @param byMatrices whether factors are rounded to f16: each by an ulp at most, as sixteenths, and sums by an ulp where
 * units cut instead of rounding
 * @returns c f64 [m, n] with its bound
 */
export function outerOnCpu(
  a: Float32Array,
  b: Float32Array,
  k: number,
  factor = 1,
  byMatrices = false,
): BoundedProduct {
  const [m, n] = [a.length / k, b.length / k];
  const y = new Float64Array(m * n);
  const bound = new Float64Array(m * n);
  for (let at = 0; at < y.length; at++) {
    let halves = 0;
    for (let i = 0; i < k; i++) {
      const [left, right] = [factor * a[i * m + Math.floor(at / n)], b[i * n + at % n]];
      y[at] += left * right;
      bound[at] += Math.abs(left * right);
      halves += 2 ** -9 * Math.abs(left * right) + 2 ** -20 * (Math.abs(left) + Math.abs(factor * right));
    }
    bound[at] *= (k + 4) * 2 ** (byMatrices ? -22 : -24);
    if (byMatrices) bound[at] += halves;
  }
  return { y, bound };
}
