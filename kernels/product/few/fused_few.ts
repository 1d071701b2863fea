// Launcher of the fused matrix-matrix kernel for few tokens.
import type { DeviceProfile } from "../../gpu/device_profile.ts";
import type { Dispatch, Gpu } from "../../gpu/gpu.ts";
import { joinShader } from "../../gpu/shader.ts";
import { type PackedMatrix, planeBuffers } from "../../matrix/packed_matrix.ts";
import { addParts, partialsBytesOf, spreadChannels } from "./few_parts.ts";
import { checkGemmChannels } from "../gemm_tile.ts";
import { type FewProduct, plainOutput } from "../weight_format.ts";
import * as wgsl from "../wgsl.ts";

/** Rows of a workgroup, and its teams, each with a half block at a time. */
const TILE_ROWS = 128;
const TEAMS = 4;

/** Workgroups of each multiprocessor. */
const WORKGROUPS_EACH = 8;

/** How rows and channels are spread over workgroups. */
export interface FewPlan {
  /** Tokens of a workgroup. */
  readonly tokens: 4 | 8 | 16;
  /** Half blocks that a team takes one after the other. */
  readonly run: number;
  /** Parts of the channels. */
  readonly splits: number;
}

/** Spreads a matrix over so many workgroups that the last ones hardly leave a multiprocessor idle. */
export function planFew(
  profile: DeviceProfile,
  rows: number,
  halfBlocks: number,
  maxTokens: number,
): FewPlan {
  const tokens = maxTokens <= 4 ? 4 : maxTokens <= 8 ? 8 : 16;
  const tiles = Math.ceil(rows / TILE_ROWS) * Math.ceil(maxTokens / tokens);
  return { tokens, ...spreadChannels(profile, tiles, Math.ceil(halfBlocks / TEAMS), WORKGROUPS_EACH) };
}

/** Bytes of the sums that a product with up to so many tokens leaves in between. */
export function fewPartialsBytes({ profile }: Gpu, { slabs, halfBlocks }: PackedMatrix, maxTokens: number): number {
  const bytesOf = (rows: number) => {
    const { tokens, splits } = planFew(profile, rows, halfBlocks, maxTokens);
    return partialsBytesOf(splits, rows, maxTokens, tokens);
  };
  return Math.max(...slabs.map(({ rows }) => bytesOf(rows)));
}

/**
 * Dispatches that compute y[token, row] = sum of w[row, channel] x[token, channel].
 *
 * @throws {RangeError} when channels are not a multiple of 4
 */
export async function fusedFew(gpu: Gpu, matrix: PackedMatrix, product: FewProduct): Promise<Dispatch[]> {
  const { channels, halfBlocks } = matrix;
  const { range, x, partials } = product;
  checkGemmChannels(channels);
  const dispatches: Dispatch[] = [];
  for (const slab of matrix.slabs) {
    const { tokens, run, splits } = planFew(gpu.profile, slab.rows, halfBlocks, range.maxTokens);
    const { outlier_planes, ...planes } = planeBuffers(slab);
    const rowTiles = Math.ceil(slab.rows / TILE_ROWS);
    const parts = { range, partials, splits, tokens, x };
    const outliers = { planes: outlier_planes, residuals: slab.outlierResiduals };
    dispatches.push(
      await gpu.makeDispatch(joinShader(wgsl, "fused_few"), {
        constants: {
          rows: slab.rows,
          channels,
          tokens,
          half_blocks: halfBlocks,
          refine_every: matrix.refineEvery === "none" ? 0 : matrix.refineEvery,
          run,
          row_tiles: rowTiles,
        },
        buffers: { range: range.buffer, ...planes, x, partials },
        workgroups: [Math.ceil(range.maxTokens / tokens), rowTiles * splits, 1],
      }),
      await addParts(gpu, matrix, { ...slab, outliers }, parts, plainOutput(product), product.norm),
    );
  }
  return dispatches;
}
