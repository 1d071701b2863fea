/**
 * Linear layers in either format: packed or f16.
 *
 * @module
 */
import { f16Gemm } from "./f16_gemm.ts";
import { f16Gemv } from "./f16_gemv.ts";
import { CHUNK_CHANNELS, destroyF16Matrix, type F16Matrix } from "./f16_matrix.ts";
import { fusedGemm } from "./fused_gemm.ts";
import { fusedGemv } from "./fused_gemv.ts";
import type { GemmOptions } from "./gemm_tile.ts";
import type { GemvOutput, ValuesInput } from "./gemv_modes.ts";
import type { Dispatch, Gpu } from "./gpu.ts";
import { destroyPackedMatrix, type PackedMatrix } from "./packed_matrix.ts";
import type { PrefillRange } from "./prefill_range.ts";
import { prepareInput } from "./prepare_input.ts";

/** A weight matrix in device memory. */
export type WeightMatrix = PackedMatrix | F16Matrix;

/** Whether a matrix is packed. */
export function isPackedMatrix(matrix: WeightMatrix): matrix is PackedMatrix {
  return "refineEvery" in matrix;
}

/**
 * Dispatches of a matrix-vector product.
 *
 * @param scratch f16 [channels, rounded up to 8]: where the input of an f16 product is prepared
 */
export async function gemv(
  gpu: Gpu,
  matrix: WeightMatrix,
  input: ValuesInput,
  output: GemvOutput,
  scratch: GPUBuffer,
): Promise<Dispatch[]> {
  if (isPackedMatrix(matrix)) return await fusedGemv(gpu, matrix, input, output);
  // Every workgroup would have to combine attention, and f32 is read in eights: those are prepared once.
  if (input.kind !== "attention" && matrix.channels % CHUNK_CHANNELS === 0) {
    return await f16Gemv(gpu, matrix, input, output);
  }
  const prepare = await prepareInput(gpu, matrix.channels, input, scratch);
  return [prepare, ...await f16Gemv(gpu, matrix, { kind: "half", x: scratch }, output)];
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

/** Copies of buffers by what they are copies of. */
export type Copies = Map<GPUBuffer, GPUBuffer>;

/**
 * A matrix with the same weights in other buffers.
 *
 * @param copies of matrices that share buffers with this one, to which its own are added
 */
export async function copyWeightMatrix(gpu: Gpu, matrix: WeightMatrix, copies: Copies): Promise<WeightMatrix> {
  return isPackedMatrix(matrix)
    ? { ...matrix, slabs: await copySlabs(gpu, matrix.slabs, copies) }
    : { ...matrix, slabs: await copySlabs(gpu, matrix.slabs, copies) };
}

/** Copies the buffers that slabs bind, and keeps the rest. */
async function copySlabs<S extends object>(gpu: Gpu, slabs: readonly S[], copies: Copies): Promise<S[]> {
  const copied: S[] = [];
  for (const slab of slabs) {
    const copy = new Map<string, unknown>(Object.entries(slab));
    for (const [name, value] of Object.entries(slab)) {
      if (!(value?.buffer instanceof GPUBuffer)) continue;
      let buffer = copies.get(value.buffer);
      if (!buffer) copies.set(value.buffer, buffer = await gpu.duplicate(value.buffer));
      copy.set(name, { ...value, buffer });
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
