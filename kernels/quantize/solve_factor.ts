// Launcher of the solver for corrected targets: (V Vᵀ) s = b for many right-hand sides (quant/target.ts is the CPU
// reference).
import { blockRanges } from "../gpu/block_ranges.ts";
import type { BufferScope } from "../gpu/buffer_scope.ts";
import { type DeviceFactor, FACTOR_BLOCK, solveBlock } from "./factorize.ts";
import type { Dispatch, Gpu } from "../gpu/gpu.ts";
import { outerUpdate, type UpdateRange, updateWords } from "./outer_update.ts";
import { placeOfRow } from "../matrix/square_matrix.ts";
import { uploadUniforms } from "../gpu/uniforms.ts";

/**
 * Dispatches that solve (V Vᵀ) s = b in place: backwards through V, then forwards through Vᵀ, block by block.
 *
 * @param scope takes over what they need
 * @param x f32 [channels, rows], in quantization order
 * @param rows a multiple of 4
 */
export async function* solveFactor(
  gpu: Gpu,
  scope: BufferScope,
  factor: DeviceFactor,
  x: GPUBuffer,
  rows: number,
): AsyncGenerator<Dispatch> {
  const { channels, matrix, blocks } = factor;
  const panel = await scope.storage("panel", 4 * FACTOR_BLOCK * rows);
  const ranges = blockRanges(channels, FACTOR_BLOCK);
  const up = [...ranges].reverse().map(({ first, size }) => ({
    first,
    size,
    update: { m: first, n: rows, k: size, aFirst: placeOfRow(matrix, first).first } satisfies UpdateRange,
    backwards: true,
  }));
  const down = ranges.map(({ first, size }) => ({
    first,
    size,
    update: {
      m: channels - first - size,
      n: rows,
      k: size,
      aFirst: placeOfRow(matrix, first).first + first + size,
      cFirst: (first + size) * rows,
    } satisfies UpdateRange,
    backwards: false,
  }));
  const steps = [...up, ...down];
  const words = await uploadUniforms(gpu, scope, [
    ...steps.map(({ first, size }) => [first, size, rows, first]),
    ...steps.map(({ update }) => updateWords(update)),
  ]);
  const target = { buffer: x, stride: rows };
  for (const [i, { first, update, backwards }] of steps.entries()) {
    const range = words[i];
    yield await solveBlock(gpu, { range, columns: rows, blocks, x: target, panel, backwards });
    if (update.m === 0) continue;
    const a = { buffer: placeOfRow(matrix, first).slab.buffer, stride: channels };
    const b = { buffer: panel, stride: rows };
    const updateOf = { range: update, words: words[steps.length + i], a, b, c: target, factor: -1 };
    yield await outerUpdate(gpu, updateOf);
  }
}
