/**
 * Products with few tokens by matrix units, for any kind of weights.
 *
 * @module
 */
import type { Constants, Dispatch, Gpu, NamedBuffers } from "../gpu/gpu.ts";
import { joinShader } from "../gpu/shader.ts";
import { checkGemmChannels } from "./gemm_tile.ts";
import { addParts, partialsBytesOf, type PartRows, spreadChannels } from "./few_sums.ts";
import type { F16Matrix } from "../matrix/f16_matrix.ts";
import type { PackedMatrix } from "../matrix/packed_matrix.ts";
import type { FewProduct } from "./weight_format.ts";
import * as wgsl from "./wgsl.ts";

/** Rows and tokens of a workgroup, and channels of a step. */
const TILE_ROWS = 128;
const TILE_TOKENS = 16;
const STEP_CHANNELS = 64;

/** Workgroups of each multiprocessor. */
const WORKGROUPS_EACH = 4;

/** Rows of a matrix, and how their weights are brought. */
export interface FewRows extends PartRows {
  /** What else the shader that brings them takes. */
  readonly constants: Constants;
  /** Its buffers. */
  readonly buffers: NamedBuffers;
}

function plan({ profile }: Gpu, rows: number, channels: number, maxTokens: number) {
  const tiles = Math.ceil(rows / TILE_ROWS) * Math.ceil(maxTokens / TILE_TOKENS);
  return spreadChannels(profile, tiles, Math.ceil(channels / STEP_CHANNELS), WORKGROUPS_EACH);
}

/** Bytes of the sums that a product with up to so many tokens leaves in between. */
export function matrixFewBytes(gpu: Gpu, { slabs, channels }: F16Matrix | PackedMatrix, maxTokens: number): number {
  const bytesOf = ({ rows }: { rows: number }) =>
    partialsBytesOf(plan(gpu, rows, channels, maxTokens).splits, rows, maxTokens, TILE_TOKENS);
  return Math.max(...slabs.map(bytesOf));
}

/**
 * Dispatches that compute y[token, row] = sum of w[row, channel] x[token, channel] for some rows of a matrix.
 *
 * @param kernel the shader that brings the weights
 * @throws {RangeError} when channels are not a multiple of 4
 */
export async function multiplyByMatrices(
  gpu: Gpu,
  kernel: "f16_gemm" | "fused_gemm",
  matrix: { readonly rows: number; readonly channels: number },
  own: FewRows,
  product: FewProduct,
): Promise<Dispatch[]> {
  const { range, x, partials } = product;
  const { rows } = own;
  checkGemmChannels(matrix.channels);
  const { run, splits } = plan(gpu, rows, matrix.channels, range.maxTokens);
  const rowTiles = Math.ceil(rows / TILE_ROWS);
  return [
    await gpu.makeDispatch(joinShader(wgsl, kernel, "matrix_few"), {
      constants: {
        rows,
        token_rows: 4 * Math.ceil(rows / 4),
        channels: matrix.channels,
        run,
        row_tiles: rowTiles,
        ...own.constants,
      },
      buffers: { range: range.buffer, ...own.buffers, x, y: partials },
      workgroups: [Math.ceil(range.maxTokens / TILE_TOKENS), rowTiles * splits, 1],
    }),
    await addParts(gpu, matrix, own, { splits, tokens: TILE_TOKENS }, product),
  ];
}
