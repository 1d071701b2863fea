// Products with few tokens whose channels are spread over workgroups: how they are spread, what adds up the parts, and
// those of them that matrix units make, for any kind of weights.
import type { DeviceProfile } from "../gpu/device_profile.ts";
import type { Constants, Dispatch, Gpu, NamedBuffers } from "../gpu/gpu.ts";
import { joinShader } from "../gpu/shader.ts";
import type { F16Matrix } from "../matrix/f16_matrix.ts";
import type { PackedMatrix } from "../matrix/packed_matrix.ts";
import { checkGemmChannels } from "./gemm_tile.ts";
import type { FewProduct } from "./weight_format.ts";
import * as wgsl from "./wgsl.ts";

/** Rows and tokens of a workgroup with matrix units, and channels of its step. */
const TILE_ROWS = 128;
const TILE_TOKENS = 16;
const STEP_CHANNELS = 64;

/** Such workgroups of each multiprocessor. */
const WORKGROUPS_EACH = 4;

/**
 * Spreads the steps of some tiles over so many workgroups that the last ones hardly leave a multiprocessor idle: the
 * steps that a workgroup takes one after the other, and the parts that makes.
 */
export function spreadChannels(
  { multiprocessors }: DeviceProfile,
  tiles: number,
  steps: number,
  workgroupsEach: number,
): { readonly run: number; readonly splits: number } {
  const run = Math.min(steps, Math.max(1, Math.round((tiles * steps) / (workgroupsEach * multiprocessors))));
  return { run, splits: Math.ceil(steps / run) };
}

/** Bytes of the parts' sums, for tiles of so many tokens. */
export function partialsBytesOf(splits: number, rows: number, maxTokens: number, tileTokens: number): number {
  return 16 * splits * Math.ceil(maxTokens / tileTokens) * tileTokens * Math.ceil(rows / 4);
}

/** Rows of a matrix whose parts are added up. */
export interface PartRows {
  /** Index of the first one in the matrix. */
  readonly firstRow: number;
  /** Their number. */
  readonly rows: number;
  /** What outliers add, see few_sums.wgsl. */
  readonly outliers?: { readonly planes: GPUBuffer | GPUBufferBinding; readonly residuals: number };
}

/** Dispatch that adds up so many parts, made by tiles of so many tokens, and outliers. */
export async function addParts(
  gpu: Gpu,
  matrix: { readonly rows: number; readonly channels: number },
  { firstRow, rows, outliers }: PartRows,
  { splits, tokens }: { readonly splits: number; readonly tokens: number },
  { range, x, y, partials, addToY }: FewProduct,
): Promise<Dispatch> {
  return await gpu.makeDispatch(joinShader(wgsl, "few_sums"), {
    constants: {
      rows,
      channels: matrix.channels,
      tokens,
      splits,
      token_rows: matrix.rows,
      first_row: firstRow,
      outlier_residuals: outliers?.residuals ?? 0,
      add_to_y: addToY ? 1 : 0,
    },
    buffers: { range: range.buffer, partials, outlier_planes: outliers?.planes ?? x, x, y },
    workgroups: [Math.ceil(rows / 256), range.maxTokens, 1],
  });
}

/** Rows of a matrix, and how their weights are brought. */
export interface FewRows extends PartRows {
  /** What else the shader that brings them takes. */
  readonly constants: Constants;
  /** Its buffers. */
  readonly buffers: NamedBuffers;
}

/**
 * The parts of the channels, with the steps that a workgroup takes one after the other: as many workgroups as come near
 * so many of each multiprocessor, by which 22016 x 4096 x 16 gets the three parts that are fastest.
 */
export function planMatrixFew({ multiprocessors }: DeviceProfile, rows: number, channels: number, maxTokens: number) {
  const tiles = Math.ceil(rows / TILE_ROWS) * Math.ceil(maxTokens / TILE_TOKENS);
  const steps = Math.ceil(channels / STEP_CHANNELS);
  const wanted = Math.round((WORKGROUPS_EACH * multiprocessors) / tiles);
  const run = Math.ceil(steps / Math.min(steps, Math.max(1, wanted)));
  return { run, splits: Math.ceil(steps / run) };
}

/** Bytes of the sums that a product with up to so many tokens leaves in between. */
export function matrixFewBytes(
  { profile }: Gpu,
  { slabs, channels }: F16Matrix | PackedMatrix,
  maxTokens: number,
): number {
  const bytesOf = ({ rows }: { rows: number }) =>
    partialsBytesOf(planMatrixFew(profile, rows, channels, maxTokens).splits, rows, maxTokens, TILE_TOKENS);
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
  const { run, splits } = planMatrixFew(gpu.profile, rows, matrix.channels, range.maxTokens);
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
