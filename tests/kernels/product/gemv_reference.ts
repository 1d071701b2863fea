// CPU reference of the f16 matrix-vector kernel.
import type { BoundedProduct } from "../../../kernels/matrix/bounded_product.ts";

/** Roundings in f32 that a product can pass on its way into the sum, for rows of `channels`. */
const roundings = (channels: number) => 12 + channels / 64;

/** y = W x in f64. @param x the input with the error that it may have */
export function f16GemvOnCpu(weights: Float16Array, rows: number, x: BoundedProduct): BoundedProduct {
  const channels = x.y.length;
  const y = new Float64Array(rows);
  const bound = new Float64Array(rows);
  for (let row = 0; row < rows; row++) {
    let carried = 0;
    for (let c = 0; c < channels; c++) {
      const weight = weights[row * channels + c];
      y[row] += weight * x.y[c];
      bound[row] += Math.abs(weight * x.y[c]);
      carried += Math.abs(weight) * x.bound[c];
    }
    bound[row] = bound[row] * roundings(channels) * 2 ** -24 + carried;
  }
  return { y, bound };
}
