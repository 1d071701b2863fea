/**
 * Quantizing one matrix on the device, from f32 weights to packed planes.
 *
 * @module
 */
import { GROUP_CHANNELS } from "../quant/format.ts";
import type { RefineEvery } from "../quant/format.ts";
import { createBufferScope } from "./buffer_scope.ts";
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
  /** f32 [channels, channels]: sum of (x - x') x'ᵀ, where targets are corrected. */
  readonly drift?: GPUBuffer;
  /** f32 [channels, rows]: sum of x' rᵀ, what the residual stream lacks; where the matrix writes to it. */
  readonly lack?: GPUBuffer;
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
  if (knowledge?.drift) await shiftToTarget(gpu, matrix, weights, knowledge, knowledge.drift);
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

/** Adds (w sum of (x - x') x'ᵀ + sum of r x'ᵀ) H⁻¹ to the turned weights (quant/target.ts is the CPU twin). */
async function shiftToTarget(
  gpu: Gpu,
  { rows, channels, turned, groupOrder }: QuantizingMatrix,
  weights: GPUBuffer,
  { factor, lack }: DeviceKnowledge,
  drift: GPUBuffer,
): Promise<void> {
  using scope = createBufferScope(gpu);
  const sizeBytes = 4 * rows * channels;
  const correlation = await scope.storage("correlation", sizeBytes);
  if (lack) gpu.copy(lack, 0, correlation, 0, sizeBytes);
  const natural = await scope.storage("weights by channel", sizeBytes);
  const range = { m: channels, n: rows, k: channels };
  const words = await uploadUniforms(gpu, [updateWords(range)]);
  scope.own(words.buffer);
  const shape = [rows, channels] as const;
  const identity = await scope.upload("natural order", naturalOrder(channels));
  const [a, b, c] = [[drift, channels], [natural, rows], [correlation, rows]] as const;
  const asRows = ([buffer, stride]: readonly [GPUBuffer, number]) => ({ buffer, stride });
  gpu.submit([
    await turnWeights(gpu, shape, weights, identity, natural),
    await outerUpdate(gpu, range, words.bindings[0], asRows(a), asRows(b), asRows(c)),
  ]);
  // The weights by channel are no longer needed; their buffer takes the correlation in quantization order.
  gpu.submit([
    await gatherRows(gpu, shape, correlation, groupOrder, natural),
    ...await solveFactor(gpu, scope, factor, natural, rows),
    await blend(gpu, natural, turned, rows * channels, 1),
  ]);
}
