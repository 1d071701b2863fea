// CPU reference of the matrix-matrix kernels.
import type { BoundedProduct } from "../../../kernels/matrix/bounded_product.ts";

/**
 * CPU reference of the matrix-matrix kernels: the product in f64. Each channel adds one rounding of 2^-24 of the sum so
 * far, an outlier's sum with its weight and the joining of partial sums a few more.
 *
 * @param weights [rows, channels], as decoded
 * @param asHalves whether the factors are rounded to f16, as for the matrix tile: each by an ulp at most, activations
 * as sixteenths, and sums by an ulp where units cut instead of rounding
 */
export function gemmOnCpu(
  weights: Float32Array | Float16Array,
  rows: number,
  channels: number,
  tokens: number,
  x: Float32Array,
  asHalves = false,
): BoundedProduct {
  const y = new Float64Array(tokens * rows);
  const bound = new Float64Array(tokens * rows);
  for (let at = 0; at < y.length; at++) {
    const row = at % rows;
    const token = Math.floor(at / rows);
    let halves = 0;
    for (let c = 0; c < channels; c++) {
      const [w, a] = [weights[row * channels + c], x[token * channels + c]];
      y[at] += w * a;
      bound[at] += Math.abs(w * a);
      halves += 2 ** -9 * Math.abs(w * a) + 2 ** -24 * (16 * Math.abs(w) + Math.abs(a));
    }
    bound[at] *= (channels + 8) * 2 ** (asHalves ? -22 : -24);
    if (asHalves) bound[at] += halves;
  }
  return { y, bound };
}
