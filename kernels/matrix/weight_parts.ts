// Putting the weights of the host through a kernel, some rows at a time, so that the device never holds them all in
// f32.
import { blockRanges } from "../gpu/block_ranges.ts";
import { createBufferScope } from "../gpu/buffer_scope.ts";
import type { Dispatch, Gpu } from "../gpu/gpu.ts";
import { uploadUniforms } from "../gpu/uniforms.ts";

const PART_BYTES = 32 * 2 ** 20;

/** Rows of a part are a multiple of this, so that parts of outputs begin at legal binding offsets. */
const PART_ROWS = 64;

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
 * Uploads a matrix part by part and submits for each what `dispatchOf` makes of it, before the next takes its place.
 *
 * @param weights f32 [rows, channels]
 * @throws {TypeError} when the array's length doesn't fit the shape
 */
export async function submitWeightParts(
  gpu: Gpu,
  [rows, channels]: readonly [rows: number, channels: number],
  weights: Float32Array<ArrayBuffer>,
  dispatchOf: (part: WeightPart) => Dispatch | Promise<Dispatch>,
): Promise<void> {
  if (weights.length !== rows * channels) {
    throw new TypeError(`matrix of ${rows} x ${channels} has ${weights.length} weights, must have ${rows * channels}`);
  }
  const partRows = Math.max(1, Math.floor(PART_BYTES / (4 * channels * PART_ROWS))) * PART_ROWS;
  using scope = createBufferScope(gpu);
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
