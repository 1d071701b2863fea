/**
 * Launcher and CPU twin of the f16 matrix-vector kernel.
 *
 * @module
 */
import type { BoundedProduct } from "./fused_gemv_twin.ts";
import type { F16Matrix } from "./f16_matrix.ts";
import { checkOutput, type GemvOutput, outputConstant, rowsPerOutput } from "./gemv_modes.ts";
import { type Dispatch, type Gpu, spreadWorkgroups } from "./gpu.ts";
import { chooseTeam, type Team } from "./team.ts";
import kernelCode from "./f16_gemv.wgsl" with { type: "text" };
import outputsCode from "./lib/outputs.wgsl" with { type: "text" };
import reduceCode from "./lib/reduce.wgsl" with { type: "text" };

/** Rows of a workgroup. */
const TEAM_ROWS = 2;

/** The whole shader for a kind of team. */
export function f16GemvCode(team: Team): string {
  return [kernelCode, outputsCode, reduceCode, team.exchangeCode].join("\n");
}

/**
 * Dispatches that compute y from W x with f16 weights.
 *
 * @param x f16 [tokens, chunks * 8], padded with zeros; see {@linkcode prepareInput}
 * @param output where the product goes, and how
 * @throws {TypeError} for a silu_product whose gate and up rows don't pair or lie in different slabs
 */
export async function f16Gemv(
  gpu: Gpu,
  matrix: F16Matrix,
  x: GPUBuffer,
  output: GemvOutput,
  { tokens = 1 }: { readonly tokens?: number } = {},
): Promise<Dispatch[]> {
  checkOutput(output, matrix.rows, matrix.slabs.length);
  const team = chooseTeam(gpu);
  const perOutput = rowsPerOutput(output);
  const tokenRows = matrix.rows / perOutput;
  return await Promise.all(matrix.slabs.map(async ({ firstRow, rows, weights }) => {
    const kernel = await gpu.createKernel("f16_gemv", f16GemvCode(team), {
      rows,
      token_rows: tokenRows,
      y_row: firstRow,
      chunks: matrix.chunks,
      team: team.lanes,
      workgroup_size: team.lanes,
      output_kind: outputConstant(output),
    });
    const y = {
      buffer: output.y.buffer,
      offset: output.y.offset ?? 0,
      size: tokens * tokenRows * 4,
    };
    const [columns, lines] = spreadWorkgroups(Math.ceil(rows / TEAM_ROWS));
    return { kernel, bindings: gpu.bind(kernel, [weights, x, y]), workgroups: [columns, lines, tokens] as const };
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
