// Launcher of the fused matrix-matrix kernel.
import { checkGemmChannels, chooseTile, tileWorkgroups } from "./gemm_tile.ts";
import type { Dispatch, Gpu } from "../gpu/gpu.ts";
import { type PackedMatrix, planeBuffers } from "../matrix/packed_matrix.ts";
import type { RangeProduct } from "./weight_format.ts";
import { joinShader } from "../gpu/shader.ts";
import * as wgsl from "./wgsl.ts";

/**
 * Dispatches that compute y[token, row] = sum of w[row, channel] x[token, channel]. The CPU reference is `gemmOnCpu` on
 * the decoded weights.
 *
 * @throws {RangeError} when channels are not a multiple of 4
 */
export async function fusedGemm(
  gpu: Gpu,
  matrix: PackedMatrix,
  { range, x, y, addToY, tile = chooseTile(gpu.profile, matrix.rows, range.maxTokens) }: RangeProduct,
): Promise<Dispatch[]> {
  checkGemmChannels(matrix.channels);
  return await Promise.all(matrix.slabs.map((slab) =>
    gpu.makeDispatch(joinShader(wgsl, "fused_gemm", tile.part), {
      constants: {
        rows: slab.rows,
        token_rows: matrix.rows,
        first_row: slab.firstRow,
        channels: matrix.channels,
        half_blocks: matrix.halfBlocks,
        refine_every: matrix.refineEvery === "none" ? 0 : matrix.refineEvery,
        outlier_residuals: slab.outlierResiduals,
        add_to_y: addToY ? 1 : 0,
      },
      buffers: { range: range.buffer, ...planeBuffers(slab), x, y },
      workgroups: tileWorkgroups(tile, slab.rows, range.maxTokens),
    })
  ));
}
