// Launcher of the fused matrix-matrix kernel.
import type { Dispatch, Gpu } from "../gpu/gpu.ts";
import { type PackedMatrix, planeBuffers } from "../matrix/packed_matrix.ts";
import { type GemmTile, multipliesMatrices } from "./gemm_tile.ts";
import { multiplyTiles } from "./tiled_product.ts";
import type { FewProduct, RangeProduct } from "./weight_format.ts";

/**
 * Dispatches that compute y[token, row] = sum of w[row, channel] x[token, channel].
 *
 * @throws {RangeError} when channels are not a multiple of 4
 */
export async function fusedGemm(
  gpu: Gpu,
  matrix: PackedMatrix,
  product: RangeProduct & Partial<FewProduct>,
): Promise<Dispatch[]> {
  const { halfBlocks, refineEvery } = matrix;
  const constants = { half_blocks: halfBlocks, refine_every: refineEvery === "none" ? 0 : refineEvery };
  const parts = (tile: GemmTile) => [multipliesMatrices(tile) ? "half_weights" : "float_weights"] as const;
  const dispatches = await Promise.all(matrix.slabs.map((slab) => {
    const buffers = planeBuffers(slab);
    const outliers = { planes: buffers.outlier_planes, residuals: slab.outlierResiduals };
    return multiplyTiles(gpu, "fused_gemm", matrix, { ...slab, constants, buffers, outliers, parts }, product);
  }));
  return dispatches.flat();
}
