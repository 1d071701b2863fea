// Launcher and CPU reference of the f16 matrix-matrix kernel.
import type { F16Matrix } from "../matrix/f16_matrix.ts";
import type { BoundedProduct } from "../matrix/bounded_product.ts";
import type { Dispatch, Gpu } from "../gpu/gpu.ts";
import { multiplyTiles } from "./tiled_product.ts";
import type { FewProduct, RangeProduct } from "./weight_format.ts";

/**
 * Dispatches that compute y[token, row] = sum of w[row, channel] x[token, channel].
 *
 * @throws {RangeError} when channels are not a multiple of 4
 */
export async function f16Gemm(
  gpu: Gpu,
  matrix: F16Matrix,
  product: RangeProduct & Partial<FewProduct>,
): Promise<Dispatch[]> {
  const dispatches = await Promise.all(matrix.slabs.map((slab) => {
    const own = { ...slab, constants: { chunks: matrix.chunks }, buffers: { weights: slab.weights } };
    return multiplyTiles(gpu, "f16_gemm", matrix, own, product);
  }));
  return dispatches.flat();
}

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
