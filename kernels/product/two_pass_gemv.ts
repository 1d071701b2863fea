// The two-pass product: packed weights are decoded to f16 in memory, then multiplied as f16. What GPTQ- and
// Greenbit-style code does, and what the fused kernels are compared with.
import { createF16Matrix, type F16Matrix } from "../matrix/f16_matrix.ts";
import { f16Gemv } from "./f16_gemv.ts";
import { type Dispatch, type Gpu, spreadWorkgroups } from "../gpu/gpu.ts";
import { type PackedMatrix, planeBuffers } from "../matrix/packed_matrix.ts";
import { joinShader } from "../gpu/shader.ts";
import * as wgsl from "./wgsl.ts";

/** Threads of a workgroup, each for half a group. */
const DECODE_THREADS = 256;
const ROW_THREADS = 64;

/** An f16 matrix that {@linkcode dequantizeOnGpu} can fill from `matrix`: same rows, channels padded to whole blocks. */
export function createDequantized(gpu: Gpu, matrix: PackedMatrix): Promise<F16Matrix> {
  return createF16Matrix(gpu, matrix.rows, matrix.halfBlocks * 64);
}

/** What {@linkcode dequantizeOnGpu} accepts beside its matrices. */
export interface DequantizeOptions {
  /** Parts to leave out when measuring their cost: the override `without` of product/parts/decode.wgsl. Default: 0. */
  readonly without?: number;
  /** Decoded scales, as from `decodeScalesOnGpu`. By default scales are decoded on the way. */
  readonly scales?: GPUBuffer;
}

/**
 * Dispatches that decode a packed matrix to f16.
 *
 * @param target as from {@linkcode createDequantized}
 * @throws {RangeError} when the matrix and its target are not one slab each
 */
export async function dequantizeOnGpu(
  gpu: Gpu,
  matrix: PackedMatrix,
  target: F16Matrix,
  { without = 0, scales }: DequantizeOptions = {},
): Promise<Dispatch[]> {
  if (matrix.slabs.length !== 1 || target.slabs.length !== 1) {
    throw new RangeError(`${matrix.slabs.length} and ${target.slabs.length} slabs, must be one each`);
  }
  const slab = matrix.slabs[0];
  const { outlier_planes, tile_scale, ...planes } = planeBuffers(slab);
  const { weights } = target.slabs[0];
  const dispatches = [
    await gpu.makeDispatch(joinShader(wgsl, "dequantize_weights", scales ? "stored_scales" : "coded_scales"), {
      constants: {
        rows: slab.rows,
        half_blocks: matrix.halfBlocks,
        refine_every: matrix.refineEvery === "none" ? 0 : matrix.refineEvery,
        workgroup_size: DECODE_THREADS,
        without,
      },
      buffers: { ...planes, weights, ...(scales ? { scales } : { tile_scale }) },
      workgroups: spreadWorkgroups(Math.ceil((slab.rows * matrix.halfBlocks * 8) / DECODE_THREADS)),
    }),
  ];
  if (slab.outlierResiduals > 0) {
    dispatches.push(
      await gpu.makeDispatch(joinShader(wgsl, "add_outliers"), {
        constants: {
          rows: slab.rows,
          row_words: matrix.halfBlocks * 32,
          outlier_residuals: slab.outlierResiduals,
          workgroup_size: ROW_THREADS,
        },
        buffers: { outlier_planes, weights },
        workgroups: [Math.ceil(slab.rows / ROW_THREADS), 1, 1],
      }),
    );
  }
  return dispatches;
}

/**
 * Dispatches that compute y = W x by way of f16 weights in `scratch`.
 *
 * @param x f16 [half blocks * 64], padded with zeros
 * @param y f32 [rows], at an offset that is a multiple of 256 bytes
 */
export async function twoPassGemv(
  gpu: Gpu,
  matrix: PackedMatrix,
  scratch: F16Matrix,
  x: GPUBuffer,
  y: GPUBufferBinding,
): Promise<Dispatch[]> {
  return [
    ...await dequantizeOnGpu(gpu, matrix, scratch),
    ...await f16Gemv(gpu, scratch, { kind: "half", x }, { kind: "store", y }),
  ];
}
