/**
 * Launcher of the fused matrix-matrix kernel.
 *
 * @module
 */
import { checkGemmChannels, chooseTile, type GemmOptions, tileWorkgroups } from "./gemm_tile.ts";
import type { Dispatch, Gpu } from "../gpu/gpu.ts";
import { type PackedMatrix, planeBuffers } from "../matrix/packed_matrix.ts";
import type { PrefillRange } from "../tokens/prefill_range.ts";
import { joinShader } from "../gpu/shader.ts";
import * as wgsl from "./wgsl.ts";

/**
 * Dispatches that compute y[token, row] = sum of w[row, channel] x[token, channel]. The CPU twin is `gemmOnCpu` on the
 * decoded weights.
 *
 * @param x f32 [tokens, channels]
 * @param y f32 [tokens, rows]
 * @throws {RangeError} when channels are not a multiple of 4
 */
export async function fusedGemm(
  gpu: Gpu,
  matrix: PackedMatrix,
  range: PrefillRange,
  x: GPUBuffer | GPUBufferBinding,
  y: GPUBuffer | GPUBufferBinding,
  options: GemmOptions = {},
): Promise<Dispatch[]> {
  checkGemmChannels(matrix.channels);
  const tile = options.tile ?? chooseTile(gpu.profile, matrix.rows, range.maxTokens);
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
        add_to_y: options.addToY ? 1 : 0,
      },
      buffers: { range: range.buffer, ...planeBuffers(slab), x, y },
      workgroups: tileWorkgroups(tile, slab.rows, range.maxTokens),
    })
  ));
}
