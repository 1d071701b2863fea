// CPU reference of the product that quantization is made of.
import type { BoundedProduct } from "../../../kernels/matrix/bounded_product.ts";

/**
 * In f64, for c that was zero: each of the k terms and the scaling add one rounding of the sum so far.
 *
 * @param a f32 [k, m]
 * @param b f32 [k, n]
 * @returns c f64 [m, n] with its bound
 */
export function outerOnCpu(a: Float32Array, b: Float32Array, k: number, factor = 1): BoundedProduct {
  const [m, n] = [a.length / k, b.length / k];
  const y = new Float64Array(m * n);
  const bound = new Float64Array(m * n);
  for (let at = 0; at < y.length; at++) {
    for (let i = 0; i < k; i++) {
      const term = factor * a[i * m + Math.floor(at / n)] * b[i * n + at % n];
      y[at] += term;
      bound[at] += Math.abs(term);
    }
    bound[at] *= (k + 4) * 2 ** -24;
  }
  return { y, bound };
}
