// Launchers of the kernels that go through arrays element by element: y = x + factor y, f32 to f16.
import { CHUNK_CHANNELS, createF16Matrix, type F16Matrix } from "./f16_matrix.ts";
import { type Dispatch, type Gpu, spreadWorkgroups } from "../gpu/gpu.ts";
import { submitWeightParts, type Weights } from "./weight_parts.ts";
import { joinShader } from "../gpu/shader.ts";
import * as wgsl from "./wgsl.ts";

/**
 * Matrix units take activations in so much: a model's largest would exceed f16. That is exact from 2^-10 on; below, f16
 * has fewer bits, and beyond 1,048,064 it has none.
 */
export const ACTIVATION_UNIT = 16;

/** Elements of a workgroup of blend and to_f16. */
const WORKGROUP_ELEMENTS = 1024;

/** Dispatch that computes y = x + factor * y for `length` elements, a multiple of 4. */
export async function blend(gpu: Gpu, x: GPUBuffer, y: GPUBuffer, length: number, factor: number): Promise<Dispatch> {
  if (length % 4 !== 0) throw new RangeError(`length is ${length}, must be a multiple of 4`);
  return await gpu.makeDispatch(joinShader(wgsl, "blend"), {
    constants: { fours: length / 4, factor },
    buffers: { x, y },
    workgroups: spreadWorkgroups(Math.ceil(length / WORKGROUP_ELEMENTS)),
  });
}

/** Dispatch that computes halves = factor * x for `length` elements, a multiple of 4, rounded to f16. */
export async function toHalves(
  gpu: Gpu,
  x: GPUBuffer | GPUBufferBinding,
  halves: GPUBuffer | GPUBufferBinding,
  length: number,
  factor = 1,
): Promise<Dispatch> {
  return await gpu.makeDispatch(joinShader(wgsl, "to_f16"), {
    constants: { fours: length / 4, factor },
    buffers: { x, halves },
    workgroups: spreadWorkgroups(Math.ceil(length / WORKGROUP_ELEMENTS)),
  });
}

/**
 * Makes an f16 matrix of f32 weights, rounded on the device.
 *
 * @param weights f32 [rows, channels], channels a multiple of 8
 * @throws {RangeError} for other channels, or where the matrix exceeds the binding limit
 */
export async function toF16Matrix(
  gpu: Gpu,
  [rows, channels]: readonly [rows: number, channels: number],
  weights: Weights,
): Promise<F16Matrix> {
  if (channels % CHUNK_CHANNELS !== 0) {
    throw new RangeError(`matrix has ${channels} channels, must be a multiple of ${CHUNK_CHANNELS}`);
  }
  const matrix = await createF16Matrix(gpu, rows, channels);
  if (matrix.slabs.length !== 1) throw new RangeError(`matrix of ${rows} x ${channels} exceeds the binding limit`);
  const { buffer } = matrix.slabs[0].weights;
  await submitWeightParts(gpu, [rows, channels], weights, (part) => {
    const length = part.rows * channels;
    return toHalves(gpu, part.weights, { buffer, offset: 2 * part.firstRow * channels, size: 2 * length }, length);
  });
  return matrix;
}
