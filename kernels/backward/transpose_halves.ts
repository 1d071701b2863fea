// Launcher of the kernel that turns f16 matrices, so that products with them go the other way.
import type { Dispatch, Gpu } from "../gpu/gpu.ts";
import { joinShader } from "../gpu/shader.ts";
import { CHUNK_CHANNELS, type F16Matrix } from "../matrix/f16_matrix.ts";
import * as wgsl from "./wgsl.ts";

/** Rows and channels of a workgroup. */
const TILE = 32;

/**
 * Dispatches, one a slab, that make rows of a matrix columns of another: transposed[channel, slab's row] = matrix[row,
 * channel].
 *
 * @param channels of `matrix` that are turned, the rest being padding
 * @param transposed f16 [channels, rows] in one slab
 * @throws {RangeError} when it has several slabs
 */
export async function transposeHalves(
  gpu: Gpu,
  matrix: F16Matrix,
  channels: number,
  transposed: F16Matrix,
): Promise<Dispatch[]> {
  if (transposed.slabs.length !== 1) {
    throw new RangeError(`transposed matrix has ${transposed.slabs.length} slabs, must have 1`);
  }
  const words = ({ chunks }: F16Matrix) => (chunks * CHUNK_CHANNELS) / 2;
  return await Promise.all(
    matrix.slabs.map(({ firstRow, rows, weights }) =>
      gpu.makeDispatch(joinShader(wgsl, "transpose_halves"), {
        constants: {
          rows,
          channels,
          first_row: firstRow,
          source_words: words(matrix),
          target_words: words(transposed),
        },
        buffers: { source: weights, transposed: transposed.slabs[0].weights },
        workgroups: [Math.ceil(channels / TILE), Math.ceil(rows / TILE), 1],
      })
    ),
  );
}
