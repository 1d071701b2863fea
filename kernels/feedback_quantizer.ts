/**
 * Launcher of error feedback on the device: blocks of 128 channels in the order of quantization, each quantized group by
 * group and its errors then passed on to all later channels by one product. Its CPU twin is `quantizeTwobit` with feedback.
 *
 * Rounding decisions are made on sums in f32 here and in f64 there; where they differ, later weights make up for another
 * error, so codes drift apart while the objective stays the same.
 *
 * @module
 */
import type { BufferScope } from "./buffer_scope.ts";
import { blockRanges, type DeviceFactor } from "./factorize.ts";
import type { Dispatch, Gpu } from "./gpu.ts";
import { GROUP_CODE, groupConstants, type QuantizingMatrix } from "./group_quantizer.ts";
import { outerUpdate, type UpdateRange, updateWords } from "./outer_update.ts";
import { uploadUniforms } from "./uniforms.ts";
import blockCode from "./feedback_block.wgsl" with { type: "text" };
import searchCode from "./lib/pulled_search.wgsl" with { type: "text" };

/** The whole shader. */
export const FEEDBACK_BLOCK_CODE: string = [blockCode, searchCode, GROUP_CODE].join("\n");

/** Channels of a block. */
const BLOCK_CHANNELS = 128;

/** Rows of a workgroup. */
const WORKGROUP_ROWS = 32;

/**
 * Dispatches that quantize a matrix with error feedback, once its groups are picked.
 *
 * @param scope takes over what they need
 */
export async function quantizeWithFactor(
  gpu: Gpu,
  scope: BufferScope,
  matrix: QuantizingMatrix,
  factor: DeviceFactor,
): Promise<Dispatch[]> {
  const { rows, channels, turned, groupOrder, picks, groupCodes, planes } = matrix;
  if (factor.channels !== channels) {
    throw new TypeError(`factor is for ${factor.channels} channels, must be for ${channels}`);
  }
  const carried = await scope.storage("carried errors", 4 * rows * channels);
  const errors = await scope.storage("errors", 4 * rows * BLOCK_CHANNELS);
  const ranges = blockRanges(channels, BLOCK_CHANNELS);
  const updates = ranges.map(({ first, size }): UpdateRange => ({
    m: channels - first - size,
    n: rows,
    k: size,
    aFirst: first * channels + first + size,
    cFirst: (first + size) * rows,
  }));
  const words = await uploadUniforms(gpu, [
    ...ranges.map(({ first, size }) => [first, size]),
    ...updates.map(updateWords),
  ]);
  scope.own(words.buffer);
  const constants = { ...groupConstants(matrix), channels };
  const kernel = await gpu.createKernel("feedback_block", FEEDBACK_BLOCK_CODE, constants);
  const inputs = [turned, groupOrder, picks, planes.tileScale, factor.matrix, carried];
  const outputs = [planes.base, planes.refine, groupCodes, errors];
  const dispatches: Dispatch[] = [];
  for (const [i, update] of updates.entries()) {
    const bindings = gpu.bind(kernel, [words.bindings[i], ...inputs, ...outputs]);
    dispatches.push({ kernel, bindings, workgroups: [Math.ceil(rows / WORKGROUP_ROWS), 1, 1] });
    if (update.m === 0) continue;
    const [a, b, c] = [[factor.matrix, channels], [errors, rows], [carried, rows]] as const;
    const asRows = ([buffer, stride]: readonly [GPUBuffer, number]) => ({ buffer, stride });
    dispatches.push(await outerUpdate(gpu, update, words.bindings[ranges.length + i], asRows(a), asRows(b), asRows(c)));
  }
  return dispatches;
}
