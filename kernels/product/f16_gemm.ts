// Launcher of the f16 matrix-matrix kernel.
import type { F16Matrix } from "../matrix/f16_matrix.ts";
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
