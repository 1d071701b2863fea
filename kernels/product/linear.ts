/**
 * Linear layers in either format: packed or f16.
 *
 * @module
 */
import { allOrNone, type BufferScope } from "../gpu/buffer_scope.ts";
import { combineAttention } from "./combine_attention.ts";
import { f16Gemm } from "./f16_gemm.ts";
import { f16Gemv } from "./f16_gemv.ts";
import { destroyF16Matrix, type F16Matrix } from "../matrix/f16_matrix.ts";
import { fusedGemm } from "./fused_gemm.ts";
import { fusedGemv } from "./fused_gemv.ts";
import type { GemmOptions } from "./gemm_tile.ts";
import type { GemvOutput, ValuesInput } from "./gemv_modes.ts";
import type { Dispatch, Gpu } from "../gpu/gpu.ts";
import { destroyPackedMatrix, type PackedMatrix } from "../matrix/packed_matrix.ts";
import type { PrefillRange } from "../tokens/prefill_range.ts";

/** A weight matrix in device memory. */
export type WeightMatrix = PackedMatrix | F16Matrix;

/** Whether a matrix is packed. */
export function isPackedMatrix(matrix: WeightMatrix): matrix is PackedMatrix {
  return "refineEvery" in matrix;
}

/**
 * Dispatches of a matrix-vector product.
 *
 * @param scratch f16 [channels]: where an f16 product's attention is combined
 * @throws {TypeError} when the channels of an f16 matrix are not a multiple of 8
 */
export async function gemv(
  gpu: Gpu,
  matrix: WeightMatrix,
  input: ValuesInput,
  output: GemvOutput,
  scratch: GPUBuffer,
): Promise<Dispatch[]> {
  if (isPackedMatrix(matrix)) return await fusedGemv(gpu, matrix, input, output);
  if (input.kind !== "attention") return await f16Gemv(gpu, matrix, input, output);
  // Once, as every workgroup would have to do it again.
  const combine = await combineAttention(gpu, matrix.channels, input, scratch);
  return [combine, ...await f16Gemv(gpu, matrix, { kind: "half", x: scratch }, output)];
}

/** Dispatches of a matrix-matrix product: y f32 [tokens, rows] from x f32 [tokens, channels]. */
export async function gemm(
  gpu: Gpu,
  matrix: WeightMatrix,
  range: PrefillRange,
  x: GPUBuffer,
  y: GPUBuffer | GPUBufferBinding,
  options: GemmOptions = {},
): Promise<Dispatch[]> {
  return isPackedMatrix(matrix)
    ? await fusedGemm(gpu, matrix, range, x, y, options)
    : await f16Gemm(gpu, matrix, range, x, y, options);
}

/** A matrix with the same weights in buffers of its own. */
export function copyWeightMatrix(gpu: Gpu, matrix: WeightMatrix): Promise<WeightMatrix> {
  return allOrNone(
    gpu,
    async (scope) =>
      isPackedMatrix(matrix)
        ? { ...matrix, slabs: await copySlabs(gpu, scope, matrix.slabs) }
        : { ...matrix, slabs: await copySlabs(gpu, scope, matrix.slabs) },
  );
}

/** Copies what slabs bind, and keeps the rest. */
async function copySlabs<S extends object>(gpu: Gpu, scope: BufferScope, slabs: readonly S[]): Promise<S[]> {
  const copied: S[] = [];
  for (const slab of slabs) {
    const copy = new Map<string, unknown>(Object.entries(slab));
    for (const [name, value] of Object.entries(slab)) {
      if (!(value?.buffer instanceof GPUBuffer)) continue;
      const { buffer, offset = 0, size = buffer.size - offset } = value as GPUBufferBinding & { buffer: GPUBuffer };
      const own = await scope.storage(buffer.label, size);
      gpu.copy(buffer, offset, own, 0, size);
      copy.set(name, { ...value, buffer: own, offset: 0 });
    }
    copied.push(Object.fromEntries(copy) as S);
  }
  return copied;
}

/** Frees a matrix. */
export function destroyWeightMatrix(gpu: Gpu, matrix: WeightMatrix): void {
  if (isPackedMatrix(matrix)) destroyPackedMatrix(gpu, matrix);
  else destroyF16Matrix(gpu, matrix);
}
