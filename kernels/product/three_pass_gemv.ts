// The three-pass product, the pipeline of mainstream code whose scales are quantized too: scales are decoded to memory,
// then weights, and then multiplied. Experiment dequant_share measures how the time is shared out between the three.
import type { F16Matrix } from "../matrix/f16_matrix.ts";
import { f16Gemv } from "./f16_gemv.ts";
import { type Dispatch, type Gpu, spreadWorkgroups } from "../gpu/gpu.ts";
import { type PackedMatrix, planeBuffers } from "../matrix/packed_matrix.ts";
import { joinShader } from "../gpu/shader.ts";
import { dequantizeOnGpu } from "./two_pass_gemv.ts";
import * as wgsl from "./wgsl.ts";

/** Threads of a workgroup, each for half a block. */
const THREADS = 256;

export interface ThreePassScratch {
  /** f16 [rows, groups], as from {@linkcode createScales}. */
  readonly scales: GPUBuffer;
  /** As from `createDequantized`. */
  readonly weights: F16Matrix;
}

export interface ThreePasses {
  /** Second-order dequantization: scale codes times d. */
  readonly secondOrder: readonly Dispatch[];
  /** First-order dequantization: codes and zeros times scales. */
  readonly firstOrder: readonly Dispatch[];
  /** The product of decoded weights and x. */
  readonly multiply: readonly Dispatch[];
}

/** A buffer for the scales of all groups of a matrix, f16 [rows, groups]. */
export function createScales(gpu: Gpu, { rows, halfBlocks }: PackedMatrix): Promise<GPUBuffer> {
  return gpu.createStorage("scales", rows * halfBlocks * 8);
}

/**
 * The dispatch that decodes the scales of a packed matrix.
 *
 * @param scales as from {@linkcode createScales}
 * @throws {RangeError} when the matrix is not one slab
 */
export async function decodeScalesOnGpu(gpu: Gpu, matrix: PackedMatrix, scales: GPUBuffer): Promise<Dispatch> {
  if (matrix.slabs.length !== 1) throw new RangeError(`${matrix.slabs.length} slabs, must be one`);
  const { meta_words, tile_scale } = planeBuffers(matrix.slabs[0]);
  return await gpu.makeDispatch(joinShader(wgsl, "decode_scales"), {
    constants: { rows: matrix.rows, half_blocks: matrix.halfBlocks, workgroup_size: THREADS },
    buffers: { meta_words, tile_scale, scales },
    workgroups: spreadWorkgroups(Math.ceil((matrix.rows * matrix.halfBlocks) / THREADS)),
  });
}

/**
 * Dispatches that compute y = W x by way of f16 scales and f16 weights in memory.
 *
 * @param x f16 [half blocks * 64], padded with zeros
 * @param y f32 [rows], at an offset that is a multiple of 256 bytes
 */
export async function threePassGemv(
  gpu: Gpu,
  matrix: PackedMatrix,
  { scales, weights }: ThreePassScratch,
  x: GPUBuffer,
  y: GPUBufferBinding,
): Promise<ThreePasses> {
  return {
    secondOrder: [await decodeScalesOnGpu(gpu, matrix, scales)],
    firstOrder: await dequantizeOnGpu(gpu, matrix, weights, { scales }),
    multiply: await f16Gemv(gpu, weights, { kind: "half", x }, { kind: "store", y }),
  };
}
