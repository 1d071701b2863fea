// Quantizing one matrix on the device, from f32 weights to packed planes.
import { GROUP_CHANNELS } from "../../quant/format.ts";
import type { RefineEvery } from "../../quant/format.ts";
import { type OutlierSettings, WITHOUT_OUTLIERS } from "../../quant/outliers.ts";
import { type BufferScope, createBufferScope } from "../gpu/buffer_scope.ts";
import { blend } from "../matrix/elementwise.ts";
import type { DeviceFactor } from "./factorize.ts";
import { quantizeWithFactor } from "./feedback_quantizer.ts";
import type { Gpu } from "../gpu/gpu.ts";
import {
  checkQuantizable,
  createQuantizingMatrix,
  mayHaveOutliers,
  packedMatrixOf,
  packMetaWords,
  searchGroups,
  transposeWeights,
} from "./group_quantizer.ts";
import { orderGroups } from "./order_groups.ts";
import { outerUpdate, updateWords } from "./outer_update.ts";
import { type PackedMatrix, placeOutliers } from "../matrix/packed_matrix.ts";
import { pickGroups, readOutliers } from "./pick_groups.ts";
import { submitAsMade } from "../gpu/run_ahead.ts";
import { solveFactor } from "./solve_factor.ts";
import { uploadUniforms } from "../gpu/uniforms.ts";
import type { Weights } from "../matrix/weight_parts.ts";

/** What quantizing a matrix on the device may know of its input: quant's `InputKnowledge` in device memory. */
export interface DeviceKnowledge {
  readonly factor: DeviceFactor;
  /** f32 [channels, channels]: {@linkcode orderDrift}'s, where targets are corrected for it alone. */
  readonly drift?: GPUBuffer;
  /**
   * f32 [channels, rows]: sum of x' (w (x - x') + r)ᵀ, where targets are corrected for what the residual stream lacks
   * too; quantizing uses it up.
   */
  readonly correlation?: GPUBuffer;
}

export interface ChannelKnowledge {
  /** f64 [channels]: how much squared errors count (quant/channel_weights.ts). */
  readonly channelWeights: Float64Array;
}

export interface DeviceSettings {
  readonly refineEvery: RefineEvery;
  /** Which weights become outliers; none by default. */
  readonly outliers?: OutlierSettings;
  /**
   * u32 [runs, rows]: the refined group of each run, counted from the run's start; by default the one whose error, times
   * the group's weight, falls most.
   */
  readonly picks?: Uint32Array<ArrayBuffer>;
}

/**
 * Puts the sum of (x - x') x'ᵀ, f32 [channels, channels], into the order of quantization, in place.
 *
 * @param scope takes over what that needs
 */
export async function orderDrift(
  gpu: Gpu,
  scope: BufferScope,
  { order, width, channels }: DeviceFactor,
  drift: GPUBuffer,
): Promise<void> {
  const matrix = { x: drift, lines: channels, width };
  gpu.submit([
    await orderGroups(gpu, scope, order, { ...matrix, channelsLie: "rows" }),
    await orderGroups(gpu, scope, order, { ...matrix, channelsLie: "columns" }),
  ]);
}

/**
 * Quantizes a matrix.
 *
 * @param weights f32 [rows, channels], finite
 * @returns the packed matrix; a second-order scale or an outlier's residual beyond f16 is infinite there
 * @throws {TypeError} when the array's length doesn't fit the shape
 * @throws {RangeError} for a shape that the device doesn't quantize, or feedback whose order splits groups
 */
export async function quantizeMatrixOnDevice(
  gpu: Gpu,
  shape: readonly [rows: number, channels: number],
  weights: Weights,
  { refineEvery, outliers = WITHOUT_OUTLIERS, picks }: DeviceSettings,
  known?: DeviceKnowledge | ChannelKnowledge,
): Promise<PackedMatrix> {
  checkQuantizable(...shape);
  const knowledge = known && "factor" in known ? known : undefined;
  const channelWeights = known && "channelWeights" in known ? known.channelWeights : undefined;
  if (knowledge && knowledge.factor.width !== GROUP_CHANNELS) {
    throw new RangeError("order of feedback splits groups, must be natural or groups");
  }
  using scope = createBufferScope(gpu);
  const order = knowledge?.factor.order ?? naturalOrder(shape[1] / GROUP_CHANNELS);
  const transposed = knowledge
    ? await turnTarget(gpu, scope, shape, weights, knowledge)
    : await transposeAlone(gpu, scope, shape, weights, await scope.upload("channel order", naturalOrder(shape[1])));
  const matrix = await createQuantizingMatrix(gpu, scope, shape, {
    refineEvery,
    groupOrder: await scope.upload("group order", order),
    transposed,
    channelWeights,
    picks,
    outliers,
  });
  gpu.submit(await pickGroups(gpu, scope, matrix));
  if (knowledge) await submitAsMade(gpu, quantizeWithFactor(gpu, scope, matrix, knowledge.factor));
  else gpu.submit([await searchGroups(gpu, matrix)]);
  gpu.submit([await packMetaWords(gpu, matrix)]);
  const packed = packedMatrixOf(matrix);
  return mayHaveOutliers(matrix) ? await placeOutliers(gpu, packed, await readOutliers(gpu, matrix)) : packed;
}

function naturalOrder(length: number): Uint32Array<ArrayBuffer> {
  return Uint32Array.from({ length }, (_, i) => i);
}

async function transposeAlone(
  gpu: Gpu,
  scope: BufferScope,
  shape: readonly [rows: number, channels: number],
  weights: Weights,
  channelOrder: GPUBuffer,
): Promise<GPUBuffer> {
  const transposed = await scope.storage("transposed", 4 * shape[0] * shape[1]);
  await transposeWeights(gpu, shape, weights, channelOrder, transposed);
  return transposed;
}

/**
 * The target of error feedback: the weights plus correlation * H⁻¹ (quant/target.ts is the CPU reference).
 *
 * @param scope owns it; a correlation becomes it and stays its owner's
 * @returns f32 [channels, rows], in the order of quantization
 */
export async function turnTarget(
  gpu: Gpu,
  scope: BufferScope,
  shape: readonly [rows: number, channels: number],
  weights: Weights,
  { factor, drift, correlation }: DeviceKnowledge,
): Promise<GPUBuffer> {
  const [rows, channels] = shape;
  const { order, width, channelOrder } = factor;
  using inner = createBufferScope(gpu);
  if (correlation) {
    gpu.submit([
      await orderGroups(gpu, inner, order, { x: correlation, lines: rows, channelsLie: "rows", width }),
    ]);
    await submitAsMade(gpu, solveFactor(gpu, inner, factor, correlation, rows));
    await transposeWeights(gpu, shape, weights, channelOrder, correlation);
    return correlation;
  }
  const transposed = await transposeAlone(gpu, scope, shape, weights, channelOrder);
  if (!drift) return transposed;
  const shift = await inner.storage("shift", 4 * rows * channels);
  const range = { m: channels, n: rows, k: channels };
  const words = await uploadUniforms(gpu, inner, [updateWords(range)]);
  const asRows = (buffer: GPUBuffer, stride: number) => ({ buffer, stride });
  const [a, b, c] = [asRows(drift, channels), asRows(transposed, rows), asRows(shift, rows)];
  gpu.submit([await outerUpdate(gpu, { range, words: words[0], a, b, c })]);
  await submitAsMade(gpu, solveFactor(gpu, inner, factor, shift, rows));
  gpu.submit([await blend(gpu, shift, transposed, rows * channels, 1)]);
  return transposed;
}
