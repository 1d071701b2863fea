// Launcher of the fused matrix-matrix kernel.
import { checkGemmChannels, chooseTile, tileWorkgroups } from "./gemm_tile.ts";
import type { Dispatch, Gpu } from "../gpu/gpu.ts";
import { type PackedMatrix, planeBuffers } from "../matrix/packed_matrix.ts";
import { multiplyByMatrices } from "./few_parts.ts";
import type { FewProduct, RangeProduct } from "./weight_format.ts";
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
        ...formOf(matrix),
        outlier_residuals: slab.outlierResiduals,
        add_to_y: addToY ? 1 : 0,
      },
      buffers: { range: range.buffer, ...planeBuffers(slab), x, y },
      workgroups: tileWorkgroups(tile, slab.rows, range.maxTokens),
    })
  ));
}

/** As {@linkcode fusedGemm} for few tokens, by matrix units. */
export async function fusedFewByMatrices(gpu: Gpu, matrix: PackedMatrix, product: FewProduct): Promise<Dispatch[]> {
  const dispatches = await Promise.all(matrix.slabs.map((slab) => {
    const buffers = planeBuffers(slab);
    const outliers = { planes: buffers.outlier_planes, residuals: slab.outlierResiduals };
    const own = { ...slab, constants: formOf(matrix), buffers, outliers };
    return multiplyByMatrices(gpu, "fused_gemm", matrix, own, product);
  }));
  return dispatches.flat();
}

function formOf({ halfBlocks, refineEvery }: PackedMatrix): Record<string, number> {
  return { half_blocks: halfBlocks, refine_every: refineEvery === "none" ? 0 : refineEvery };
}
