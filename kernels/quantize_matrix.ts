/**
 * Quantizing one matrix on the device, from f32 weights to packed planes.
 *
 * @module
 */
import { GROUP_CHANNELS } from "../quant/format.ts";
import type { RefineEvery } from "../quant/format.ts";
import { type BufferScope, createBufferScope } from "./buffer_scope.ts";
import { blend, gatherRows } from "./elementwise.ts";
import type { DeviceFactor } from "./factorize.ts";
import { quantizeWithFactor } from "./feedback_quantizer.ts";
import type { Gpu } from "./gpu.ts";
import {
  createQuantizingMatrix,
  packedMatrixOf,
  packMetaWords,
  pickGroups,
  type QuantizingMatrix,
  searchGroups,
  turnWeights,
} from "./group_quantizer.ts";
import { outerUpdate, updateWords } from "./outer_update.ts";
import type { PackedMatrix } from "./packed_matrix.ts";
import { solveFactor } from "./solve_factor.ts";
import { uploadUniforms } from "./uniforms.ts";

/** What quantizing a matrix on the device may know of its input: quant's `InputKnowledge` in device memory. */
export interface DeviceKnowledge {
  /** Error feedback. */
  readonly factor: DeviceFactor;
  /** f32 [channels, channels]: sum of (x - x') x'ᵀ, where targets are corrected for it alone. */
  readonly drift?: GPUBuffer;
  /** f32 [channels, rows]: sum of x' (w (x - x') + r)ᵀ, where targets are corrected for what the residual stream lacks too. */
  readonly correlation?: GPUBuffer;
}

/**
 * Quantizes a matrix.
 *
 * @param weights f32 [rows, channels], finite
 * @returns the packed matrix; a second-order scale beyond f16 is infinite there
 * @throws {RangeError} for a shape that the device doesn't quantize
 */
export async function quantizeMatrixOnDevice(
  gpu: Gpu,
  shape: readonly [rows: number, channels: number],
  weights: GPUBuffer,
  refineEvery: RefineEvery,
  knowledge?: DeviceKnowledge,
): Promise<PackedMatrix> {
  using scope = createBufferScope(gpu);
  const order = knowledge?.factor.groupOrder ?? await scope.upload("group order", naturalOrder(shape[1]));
  const matrix = await createQuantizingMatrix(gpu, scope, shape, refineEvery, order);
  gpu.submit([await turnWeights(gpu, shape, weights, order, matrix.turned)]);
  if (knowledge) await shiftToTarget(gpu, matrix, weights, knowledge);
  gpu.submit([
    ...await pickGroups(gpu, matrix),
    ...(knowledge ? await quantizeWithFactor(gpu, scope, matrix, knowledge.factor) : [await searchGroups(gpu, matrix)]),
    await packMetaWords(gpu, matrix),
  ]);
  return packedMatrixOf(matrix);
}

function naturalOrder(channels: number): Uint32Array<ArrayBuffer> {
  return Uint32Array.from({ length: Math.floor(channels / GROUP_CHANNELS) }, (_, group) => group);
}

/** Adds correlation * H⁻¹ to the turned weights (quant/target.ts is the CPU twin). */
async function shiftToTarget(
  gpu: Gpu,
  matrix: QuantizingMatrix,
  weights: GPUBuffer,
  { factor, drift, correlation: known }: DeviceKnowledge,
): Promise<void> {
  const { rows, channels, turned, groupOrder } = matrix;
  using scope = createBufferScope(gpu);
  const correlation = known ?? (drift && await correlate(gpu, scope, matrix, weights, drift));
  if (!correlation) return;
  const shift = await scope.storage("shift", 4 * rows * channels);
  gpu.submit([
    await gatherRows(gpu, [rows, channels], correlation, groupOrder, shift),
    ...await solveFactor(gpu, scope, factor, shift, rows),
    await blend(gpu, shift, turned, rows * channels, 1),
  ]);
}

/** w * drift, turned but in natural order: f32 [channels, rows]. */
async function correlate(
  gpu: Gpu,
  scope: BufferScope,
  { rows, channels }: QuantizingMatrix,
  weights: GPUBuffer,
  drift: GPUBuffer,
): Promise<GPUBuffer> {
  const correlation = await scope.storage("correlation", 4 * rows * channels);
  using inner = createBufferScope(gpu);
  const natural = await inner.storage("weights by channel", 4 * rows * channels);
  const identity = await inner.upload("natural order", naturalOrder(channels));
  const range = { m: channels, n: rows, k: channels };
  const words = await uploadUniforms(gpu, [updateWords(range)]);
  inner.own(words.buffer);
  const asRows = (buffer: GPUBuffer, stride: number) => ({ buffer, stride });
  const [a, b, c] = [asRows(drift, channels), asRows(natural, rows), asRows(correlation, rows)];
  gpu.submit([
    await turnWeights(gpu, [rows, channels], weights, identity, natural),
    await outerUpdate(gpu, range, words.bindings[0], a, b, c),
  ]);
  return correlation;
}
