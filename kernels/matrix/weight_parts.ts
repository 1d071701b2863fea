// Putting weights in f32 through a kernel: those of the host some rows at a time, so that the device never holds them all.
import { blockRanges } from "../gpu/block_ranges.ts";
import { createBufferScope } from "../gpu/buffer_scope.ts";
import type { Dispatch, Gpu } from "../gpu/gpu.ts";
import { uploadUniforms } from "../gpu/uniforms.ts";

const PART_BYTES = 32 * 2 ** 20;

/** Rows of a part are a multiple of this, so that parts of outputs begin at legal binding offsets. */
const PART_ROWS = 64;

/** f32 [rows, channels]: of the host, or on the device. */
export type Weights = Float32Array<ArrayBuffer> | GPUBuffer;

/** Rows of a matrix. */
export interface WeightPart {
  /** f32 [rows, channels]. */
  readonly weights: GPUBufferBinding;
  /** Uniform: first row, rows. */
  readonly range: GPUBufferBinding;
  /** First row of the matrix that it holds. */
  readonly firstRow: number;
  readonly rows: number;
}

/**
 * Submits what `dispatchOf` makes of a matrix: all at once where it is on the device, else part by part, each uploaded
 * before the next takes its place.
 *
 * @throws {TypeError} when the array's length doesn't fit the shape
 */
export async function submitWeightParts(
  gpu: Gpu,
  [rows, channels]: readonly [rows: number, channels: number],
  weights: Weights,
  dispatchOf: (part: WeightPart) => Dispatch | Promise<Dispatch>,
): Promise<void> {
  using scope = createBufferScope(gpu);
  if (!(weights instanceof Float32Array)) {
    const [range] = await uploadUniforms(gpu, scope, [[0, rows]]);
    return gpu.submit([await dispatchOf({ weights: { buffer: weights }, range, firstRow: 0, rows })]);
  }
  if (weights.length !== rows * channels) {
    throw new TypeError(`matrix of ${rows} x ${channels} has ${weights.length} weights, must have ${rows * channels}`);
  }
  const partRows = Math.max(1, Math.floor(PART_BYTES / (4 * channels * PART_ROWS))) * PART_ROWS;
  const buffer = await scope.storage("weights", 4 * channels * Math.min(rows, partRows));
  const parts = blockRanges(rows, partRows);
  const ranges = await uploadUniforms(gpu, scope, parts.map(({ first, size }) => [first, size]));
  for (const [i, { first, size }] of parts.entries()) {
    await gpu.waitForWrites();
    gpu.write(buffer, weights.subarray(first * channels, (first + size) * channels));
    const part = { buffer, size: 4 * channels * size };
    gpu.submit([await dispatchOf({ weights: part, range: ranges[i], firstRow: first, rows: size })]);
  }
}
