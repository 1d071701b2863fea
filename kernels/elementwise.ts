/**
 * Launchers of the kernels that go through arrays element by element: y = x + factor y, f32 to f16, rows in another order.
 *
 * @module
 */
import { GROUP_CHANNELS } from "../quant/format.ts";
import { CHUNK_CHANNELS, createF16Matrix, type F16Matrix } from "./f16_matrix.ts";
import { type Dispatch, type Gpu, spreadWorkgroups } from "./gpu.ts";
import blendCode from "./blend.wgsl" with { type: "text" };
import gatherCode from "./gather_rows.wgsl" with { type: "text" };
import halveCode from "./halve_weights.wgsl" with { type: "text" };

/** The whole shader of each kernel. */
export const ELEMENTWISE_CODE = { blend: blendCode, gather_rows: gatherCode, halve_weights: halveCode } as const;

/** Elements of a workgroup of blend and halve_weights. */
const WORKGROUP_ELEMENTS = 1024;

/** Dispatch that computes y = x + factor * y for `length` elements, a multiple of 4. */
export async function blend(gpu: Gpu, x: GPUBuffer, y: GPUBuffer, length: number, factor: number): Promise<Dispatch> {
  if (length % 4 !== 0) throw new RangeError(`length is ${length}, must be a multiple of 4`);
  const kernel = await gpu.createKernel("blend", blendCode, { fours: length / 4, factor });
  const workgroups = spreadWorkgroups(Math.ceil(length / WORKGROUP_ELEMENTS));
  return { kernel, bindings: gpu.bind(kernel, [x, y]), workgroups };
}

/**
 * Dispatch that puts channels into the order of quantization.
 *
 * @param x f32 [channels, rows]
 * @param groupOrder u32 [channels / 16]
 * @param y f32 [channels, rows]
 */
export async function gatherRows(
  gpu: Gpu,
  [rows, channels]: readonly [rows: number, channels: number],
  x: GPUBuffer,
  groupOrder: GPUBuffer,
  y: GPUBuffer,
): Promise<Dispatch> {
  if (channels % GROUP_CHANNELS !== 0) throw new RangeError(`${channels} channels, must be a multiple of 16`);
  const kernel = await gpu.createKernel("gather_rows", gatherCode, { rows });
  return {
    kernel,
    bindings: gpu.bind(kernel, [x, groupOrder, y]),
    workgroups: [Math.ceil(rows / 64), channels, 1],
  };
}

/**
 * Makes an f16 matrix of f32 weights on the device.
 *
 * @param weights f32 [rows, channels], channels a multiple of 8
 * @returns the matrix and the dispatch that fills it
 * @throws {RangeError} for other channels, or where the matrix exceeds the binding limit
 */
export async function halveWeights(
  gpu: Gpu,
  [rows, channels]: readonly [rows: number, channels: number],
  weights: GPUBuffer,
): Promise<{ matrix: F16Matrix; dispatch: Dispatch }> {
  if (channels % CHUNK_CHANNELS !== 0) {
    throw new RangeError(`matrix has ${channels} channels, must be a multiple of ${CHUNK_CHANNELS}`);
  }
  const matrix = await createF16Matrix(gpu, rows, channels);
  if (matrix.slabs.length !== 1) throw new RangeError(`matrix of ${rows} x ${channels} exceeds the binding limit`);
  const length = rows * channels;
  const kernel = await gpu.createKernel("halve_weights", halveCode, { fours: length / 4 });
  const bindings = gpu.bind(kernel, [weights, matrix.slabs[0].weights]);
  return {
    matrix,
    dispatch: { kernel, bindings, workgroups: spreadWorkgroups(Math.ceil(length / WORKGROUP_ELEMENTS)) },
  };
}
