/**
 * Quantizing one matrix on the device, from f32 weights to packed planes.
 *
 * @module
 */
import { GROUP_CHANNELS } from "../../quant/format.ts";
import type { RefineEvery } from "../../quant/format.ts";
import { type BufferScope, createBufferScope } from "../gpu/buffer_scope.ts";
import { blend } from "../matrix/elementwise.ts";
import type { DeviceFactor } from "./factorize.ts";
import { quantizeWithFactor } from "./feedback_quantizer.ts";
import type { Gpu } from "../gpu/gpu.ts";
import {
  checkQuantizable,
  createQuantizingMatrix,
  packedMatrixOf,
  packMetaWords,
  pickGroups,
  searchGroups,
  transposeWeights,
} from "./group_quantizer.ts";
import { orderGroups } from "./order_groups.ts";
import { outerUpdate, updateWords } from "./outer_update.ts";
import type { PackedMatrix } from "../matrix/packed_matrix.ts";
import { solveFactor } from "./solve_factor.ts";
import { uploadUniforms } from "../gpu/uniforms.ts";

/** What quantizing a matrix on the device may know of its input: quant's `InputKnowledge` in device memory. */
export interface DeviceKnowledge {
  /** Error feedback. */
  readonly factor: DeviceFactor;
  /** f32 [channels, channels]: {@linkcode orderDrift}'s, where targets are corrected for it alone. */
  readonly drift?: GPUBuffer;
  /**
   * f32 [channels, rows]: sum of x' (w (x - x') + r)ᵀ, where targets are corrected for what the residual stream lacks
   * too; quantizing uses it up.
   */
  readonly correlation?: GPUBuffer;
}

/** What it may know without error feedback. */
export interface ChannelKnowledge {
  /** f64 [channels]: how much squared errors count (quant/channel_weights.ts). */
  readonly channelWeights: Float64Array;
}

/**
 * Puts the sum of (x - x') x'ᵀ, f32 [channels, channels], into the order of quantization, in place.
 *
 * @param scope takes over what that needs
 */
export async function orderDrift(
  gpu: Gpu,
  scope: BufferScope,
  { order, channels }: DeviceFactor,
  drift: GPUBuffer,
): Promise<void> {
  const matrix = { x: drift, lines: channels };
  gpu.submit([
    await orderGroups(gpu, scope, order, { ...matrix, channelsLie: "rows" }),
    await orderGroups(gpu, scope, order, { ...matrix, channelsLie: "columns" }),
  ]);
}

/**
 * Quantizes a matrix.
 *
 * @param weights f32 [rows, channels], finite
 * @returns the packed matrix; a second-order scale beyond f16 is infinite there
 * @throws {TypeError} when the array's length doesn't fit the shape
 * @throws {RangeError} for a shape that the device doesn't quantize
 */
export async function quantizeMatrixOnDevice(
  gpu: Gpu,
  shape: readonly [rows: number, channels: number],
  weights: Float32Array<ArrayBuffer>,
  refineEvery: RefineEvery,
  known?: DeviceKnowledge | ChannelKnowledge,
): Promise<PackedMatrix> {
  checkQuantizable(...shape);
  const knowledge = known && "factor" in known ? known : undefined;
  const channelWeights = known && "channelWeights" in known ? known.channelWeights : undefined;
  using scope = createBufferScope(gpu);
  const order = knowledge?.factor.groupOrder ?? await scope.upload("group order", naturalOrder(shape[1]));
  const transposed = knowledge
    ? await turnTarget(gpu, scope, shape, weights, knowledge)
    : await transposeAlone(gpu, scope, shape, weights, order);
  const matrix = await createQuantizingMatrix(gpu, scope, shape, {
    refineEvery,
    groupOrder: order,
    transposed,
    channelWeights,
  });
  gpu.submit([
    ...await pickGroups(gpu, matrix),
    ...(knowledge ? await quantizeWithFactor(gpu, scope, matrix, knowledge.factor) : [await searchGroups(gpu, matrix)]),
    await packMetaWords(gpu, matrix),
  ]);
  return packedMatrixOf(matrix);
}

function naturalOrder(channels: number): Uint32Array<ArrayBuffer> {
  return Uint32Array.from({ length: channels / GROUP_CHANNELS }, (_, group) => group);
}

async function transposeAlone(
  gpu: Gpu,
  scope: BufferScope,
  shape: readonly [rows: number, channels: number],
  weights: Float32Array<ArrayBuffer>,
  order: GPUBuffer,
): Promise<GPUBuffer> {
  const transposed = await scope.storage("transposed", 4 * shape[0] * shape[1]);
  await transposeWeights(gpu, shape, weights, order, transposed);
  return transposed;
}

/** The target of error feedback, transposed: the weights plus correlation * H⁻¹ (quant/target.ts is the CPU reference). */
async function turnTarget(
  gpu: Gpu,
  scope: BufferScope,
  shape: readonly [rows: number, channels: number],
  weights: Float32Array<ArrayBuffer>,
  { factor, drift, correlation }: DeviceKnowledge,
): Promise<GPUBuffer> {
  const [rows, channels] = shape;
  using inner = createBufferScope(gpu);
  if (correlation) {
    gpu.submit([
      await orderGroups(gpu, inner, factor.order, { x: correlation, lines: rows, channelsLie: "rows" }),
      ...await solveFactor(gpu, inner, factor, correlation, rows),
    ]);
    await transposeWeights(gpu, shape, weights, factor.groupOrder, correlation);
    return correlation;
  }
  const transposed = await transposeAlone(gpu, scope, shape, weights, factor.groupOrder);
  if (!drift) return transposed;
  const shift = await inner.storage("shift", 4 * rows * channels);
  const range = { m: channels, n: rows, k: channels };
  const words = await uploadUniforms(gpu, inner, [updateWords(range)]);
  const asRows = (buffer: GPUBuffer, stride: number) => ({ buffer, stride });
  const [a, b, c] = [asRows(drift, channels), asRows(transposed, rows), asRows(shift, rows)];
  gpu.submit([
    await outerUpdate(gpu, { range, words: words[0], a, b, c }),
    ...await solveFactor(gpu, inner, factor, shift, rows),
    await blend(gpu, shift, transposed, rows * channels, 1),
  ]);
  return transposed;
}
