/**
 * Launcher and CPU twin of the f16 matrix-vector kernel.
 *
 * @module
 */
import type { BoundedProduct } from "./fused_gemv_twin.ts";
import type { F16Matrix } from "./f16_matrix.ts";
import { type Dispatch, type Gpu, spreadWorkgroups } from "./gpu.ts";
import { chooseTeam } from "./team.ts";
import kernelCode from "./f16_gemv.wgsl" with { type: "text" };
import reduceCode from "./lib/reduce.wgsl" with { type: "text" };

const ROWS_A_TEAM = 2;

/**
 * Dispatches that compute y = W x with f16 weights.
 *
 * @param x f16 [chunks * 8], padded with zeros
 * @param y f32 [rows], at an offset that is a multiple of 256 bytes
 */
export async function f16Gemv(
  gpu: Gpu,
  matrix: F16Matrix,
  x: GPUBuffer,
  y: GPUBufferBinding,
  options: { readonly addToY?: boolean } = {},
): Promise<Dispatch[]> {
  const team = chooseTeam(gpu);
  const code = [kernelCode, reduceCode, team.exchangeCode].join("\n");
  return await Promise.all(matrix.slabs.map(async ({ firstRow, rows, weights }) => {
    const kernel = await gpu.createKernel("f16_gemv", code, {
      rows,
      chunks: matrix.chunks,
      team: team.lanes,
      workgroup_size: team.lanes,
      add_to_y: options.addToY ? 1 : 0,
    });
    const yRows = { buffer: y.buffer, offset: (y.offset ?? 0) + firstRow * 4, size: rows * 4 };
    return {
      kernel,
      bindings: gpu.bind(kernel, [weights, x, yRows]),
      workgroups: spreadWorkgroups(Math.ceil(rows / ROWS_A_TEAM)),
    };
  }));
}

/** Roundings in f32 that a product can pass on its way into the sum, for rows of `channels`. */
const roundings = (channels: number) => 12 + channels / 64;

/** CPU twin of {@linkcode f16Gemv}: y = W x in f64. */
export function f16GemvOnCpu(weights: Float16Array, rows: number, x: Float16Array): BoundedProduct {
  const y = new Float64Array(rows);
  const bound = new Float64Array(rows);
  for (let row = 0; row < rows; row++) {
    for (let c = 0; c < x.length; c++) {
      const term = weights[row * x.length + c] * x[c];
      y[row] += term;
      bound[row] += Math.abs(term);
    }
    bound[row] *= roundings(x.length) * 2 ** -24;
  }
  return { y, bound };
}
