// Launcher of the f16 matrix-matrix kernel.
import type { F16Matrix } from "../matrix/f16_matrix.ts";
import { checkGemmChannels, chooseTile, tileWorkgroups } from "./gemm_tile.ts";
import type { Dispatch, Gpu } from "../gpu/gpu.ts";
import { multiplyByMatrices } from "./few_parts.ts";
import type { FewProduct, RangeProduct } from "./weight_format.ts";
import { joinShader } from "../gpu/shader.ts";
import * as wgsl from "./wgsl.ts";

/**
 * Dispatches that compute y[token, row] = sum of w[row, channel] x[token, channel].
 *
 * @throws {RangeError} when channels are not a multiple of 4
 */
export async function f16Gemm(
  gpu: Gpu,
  matrix: F16Matrix,
  { range, x, y, addToY, tile = chooseTile(gpu.profile, matrix.rows, range.maxTokens) }: RangeProduct,
): Promise<Dispatch[]> {
  checkGemmChannels(matrix.channels);
  return await Promise.all(
    matrix.slabs.map(({ firstRow, rows, weights }) =>
      gpu.makeDispatch(joinShader(wgsl, "f16_gemm", tile.part), {
        constants: {
          rows,
          token_rows: matrix.rows,
          first_row: firstRow,
          channels: matrix.channels,
          chunks: matrix.chunks,
          add_to_y: addToY ? 1 : 0,
        },
        buffers: { range: range.buffer, weights, x, y },
        workgroups: tileWorkgroups(tile, rows, range.maxTokens),
      })
    ),
  );
}

/** As {@linkcode f16Gemm} for few tokens, by matrix units. */
export async function f16FewByMatrices(gpu: Gpu, matrix: F16Matrix, product: FewProduct): Promise<Dispatch[]> {
  const dispatches = await Promise.all(matrix.slabs.map((slab) => {
    const own = { ...slab, constants: { chunks: matrix.chunks }, buffers: { weights: slab.weights } };
    return multiplyByMatrices(gpu, "f16_gemm", matrix, own, product);
  }));
  return dispatches.flat();
}
