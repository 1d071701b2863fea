/**
 * Launcher and CPU twin of the fused matrix-matrix kernel.
 *
 * @module
 */
import { dequantize } from "../quant/dequantize.ts";
import type { PackedTensor } from "../quant/packed_tensor.ts";
import type { BoundedProduct } from "./fused_gemv_twin.ts";
import type { Dispatch, Gpu } from "./gpu.ts";
import type { PackedMatrix } from "./packed_matrix.ts";
import kernelCode from "./fused_gemm.wgsl" with { type: "text" };
import decodeCode from "./lib/decode.wgsl" with { type: "text" };
import groupCode from "./lib/group.wgsl" with { type: "text" };

/** Rows and tokens of a workgroup. */
const TILE = 64;

/** The whole shader. */
export const FUSED_GEMM_CODE: string = [kernelCode, groupCode, decodeCode].join("\n");

/**
 * Dispatch that computes y[token, row] = sum of w[row, channel] x[token, channel] for several tokens.
 *
 * @param x f32 [tokens, channels]
 * @param y f32 [tokens, rows]
 * @throws {RangeError} when the matrix is more than one slab
 */
export async function fusedGemm(
  gpu: Gpu,
  matrix: PackedMatrix,
  tokens: number,
  x: GPUBuffer,
  y: GPUBufferBinding,
): Promise<Dispatch> {
  if (matrix.slabs.length !== 1) throw new RangeError(`matrix has ${matrix.slabs.length} slabs, must be one`);
  const slab = matrix.slabs[0];
  const kernel = await gpu.createKernel("fused_gemm", FUSED_GEMM_CODE, {
    rows: matrix.rows,
    channels: matrix.channels,
    half_blocks: matrix.halfBlocks,
    tokens,
    refine_every: matrix.refineEvery === "none" ? 0 : matrix.refineEvery,
    outlier_residuals: slab.outlierResiduals,
  });
  const bindings = gpu.bind(kernel, [slab.base, slab.refine, slab.meta, slab.tileScale, slab.outliers, x, y]);
  return { kernel, bindings, workgroups: [Math.ceil(matrix.rows / TILE), Math.ceil(tokens / TILE), 1] };
}

/**
 * CPU twin of {@linkcode fusedGemm}: the product in f64. Weights are decoded exactly; each channel adds one rounding of
 * 2^-24 of the sum so far, each outlier another.
 */
export function fusedGemmOnCpu(tensor: PackedTensor, tokens: number, x: Float32Array): BoundedProduct {
  const { rows, channels } = tensor;
  const weights = dequantize(tensor);
  const y = new Float64Array(tokens * rows);
  const bound = new Float64Array(tokens * rows);
  for (let at = 0; at < y.length; at++) {
    const row = at % rows;
    const token = Math.floor(at / rows);
    for (let c = 0; c < channels; c++) {
      const term = weights[row * channels + c] * x[token * channels + c];
      y[at] += term;
      bound[at] += Math.abs(term);
    }
    bound[at] *= (channels + 8) * 2 ** -24;
  }
  return { y, bound };
}
