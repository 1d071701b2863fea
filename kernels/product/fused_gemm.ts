/**
 * Launcher of the fused matrix-matrix kernel.
 *
 * @module
 */
import { checkGemmChannels, chooseTile, type GemmOptions, type GemmTile, tileWorkgroups } from "./gemm_tile.ts";
import type { Dispatch, Gpu } from "../gpu/gpu.ts";
import { type PackedMatrix, planesOf } from "../matrix/packed_matrix.ts";
import type { PrefillRange } from "../tokens/prefill_range.ts";
import kernelCode from "./fused_gemm.wgsl" with { type: "text" };
import decodeCode from "./parts/decode.wgsl" with { type: "text" };

/** The whole shader for a shape of tile. */
export function fusedGemmCode(tile: GemmTile): string {
  return [kernelCode, tile.code, decodeCode].join("\n");
}

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
  const tile = options.tile ?? chooseTile(matrix.rows, range.maxTokens);
  return await Promise.all(matrix.slabs.map(async (slab) => {
    const kernel = await gpu.createKernel(`fused_gemm ${tile.name}`, fusedGemmCode(tile), {
      rows: slab.rows,
      token_rows: matrix.rows,
      first_row: slab.firstRow,
      channels: matrix.channels,
      half_blocks: matrix.halfBlocks,
      refine_every: matrix.refineEvery === "none" ? 0 : matrix.refineEvery,
      outlier_residuals: slab.outlierResiduals,
      add_to_y: options.addToY ? 1 : 0,
    });
    const planes = planesOf(slab);
    return {
      kernel,
      bindings: gpu.bind(kernel, [range.buffer, ...planes, x, y]),
      workgroups: tileWorkgroups(tile, slab.rows, range.maxTokens),
    };
  }));
}
