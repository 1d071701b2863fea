// Products whose channels are spread over workgroups: how they are spread, and what adds up the parts.
import type { DeviceProfile } from "../../gpu/device_profile.ts";
import type { Dispatch, Gpu } from "../../gpu/gpu.ts";
import { checkFours, foursConstants, foursPart } from "../../gpu/fours.ts";
import { joinShader } from "../../gpu/shader.ts";
import type { TokenRange } from "../../tokens/token_range.ts";
import { checkOutput, type Epilogue } from "../prologue_epilogue.ts";
import type { SumsNorm } from "../weight_format.ts";
import * as wgsl from "../wgsl.ts";

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

/** Parts of the channels, as they lie. */
export interface Parts {
  readonly range: TokenRange;
  /** f32 [splits, tokens in tiles, rows in fours]. */
  readonly partials: GPUBuffer | GPUBufferBinding;
  readonly splits: number;
  /** Tokens of a tile. */
  readonly tokens: number;
  /** f32 [tokens, channels]: the input, for outliers; or in f16, in units of `unit`. */
  readonly x: GPUBuffer;
  /** Default: f32. */
  readonly unit?: number | undefined;
}

/**
 * Dispatch that adds up parts and outliers. Of gate and up it makes silu(gate) up, in f16 where the input is.
 *
 * @param norm of y, which then is all that they are added to
 * @throws {TypeError} when gate and up rows don't pair, or lie in different slabs
 */
export async function addParts(
  gpu: Gpu,
  matrix: { readonly rows: number; readonly channels: number },
  { firstRow, rows, outliers }: PartRows,
  { range, partials, splits, tokens, x, unit }: Parts,
  output: Epilogue,
  norm?: SumsNorm,
): Promise<Dispatch> {
  checkOutput(output, matrix.rows, rows === matrix.rows ? 1 : 2);
  const constants = {
    rows,
    channels: matrix.channels,
    tokens,
    splits,
    outlier_residuals: outliers?.residuals ?? 0,
    ...(unit !== undefined && { x_unit: unit }),
  };
  const buffers = { range: range.buffer, partials, outlier_planes: outliers?.planes ?? x, x, y: output.y };
  if (norm) {
    checkFours("rows", rows);
    const { workgroupThreads, software } = gpu.profile;
    const threads = software ? 64 : Math.min(workgroupThreads, 2 ** Math.ceil(Math.log2(rows / 4)));
    const { epsilon, weight, normed } = norm;
    return await gpu.makeDispatch(joinShader(wgsl, "sums_norm", foursPart(norm.unit)), {
      constants: { ...constants, sum_threads: threads, epsilon, ...foursConstants(norm.unit) },
      buffers: { ...buffers, weight, normed },
      workgroups: [1, range.maxTokens, 1],
    });
  }
  if (output.kind === "silu_product") {
    return await gpu.makeDispatch(joinShader(wgsl, "sums_silu", foursPart(unit)), {
      constants: { ...constants, ...foursConstants(unit) },
      buffers,
      workgroups: [Math.ceil(rows / 512), range.maxTokens, 1],
    });
  }
  return await gpu.makeDispatch(joinShader(wgsl, "few_sums"), {
    constants: {
      ...constants,
      token_rows: matrix.rows,
      first_row: firstRow,
      add_to_y: output.kind === "add" ? 1 : 0,
    },
    buffers,
    workgroups: [Math.ceil(rows / 256), range.maxTokens, 1],
  });
}
