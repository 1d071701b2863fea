// Products whose channels are spread over workgroups: how they are spread, and what adds up the parts.
import type { DeviceProfile } from "../gpu/device_profile.ts";
import type { Dispatch, Gpu } from "../gpu/gpu.ts";
import { joinShader } from "../gpu/shader.ts";
import type { FewProduct } from "./weight_format.ts";
import * as wgsl from "./wgsl.ts";

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
