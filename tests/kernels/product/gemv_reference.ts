// CPU references of the f16 matrix-vector kernel, and of the fused one where it packs its input itself.
import type { BoundedProduct } from "../../../kernels/matrix/bounded_product.ts";
import { fusedGemvOnCpu } from "../../../kernels/product/fused_gemv_reference.ts";
import { activationsOf, packActivations } from "../../../kernels/product/pack_activations.ts";
import { dequantize } from "../../../quant/dequantize.ts";
import type { PackedTensor } from "../../../quant/packed_tensor.ts";

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

/**
 * y = W x for a kernel that packs x itself. It may round each activation otherwise than {@linkcode packActivations}
 * does: both are within half a unit, of one step for even and four for odd channels, of what they round, and that is
 * within `bound` of x.
 *
 * @param x as from `inputOnCpu`
 */
export function fusedGemvOfValuesOnCpu(tensor: PackedTensor, x: BoundedProduct): BoundedProduct {
  const { rows, channels } = tensor;
  const packed = packActivations(Float32Array.from(x.y));
  const { steps } = activationsOf(packed, channels);
  const product = fusedGemvOnCpu(tensor, packed);
  const weights = dequantize(tensor);
  const slack = Float64Array.from(x.bound, (bound, c) => 1.02 * (c % 2 === 0 ? 1 : 4) * steps[c >> 4] + 2 * bound);
  for (let row = 0; row < rows; row++) {
    for (let c = 0; c < channels; c++) product.bound[row] += Math.abs(weights[row * channels + c]) * slack[c];
  }
  return product;
}
