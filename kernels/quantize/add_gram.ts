// Adding to a Hessian.
import { createBufferScope } from "../gpu/buffer_scope.ts";
import type { Gpu } from "../gpu/gpu.ts";
import { outerUpdate, updateWords } from "./outer_update.ts";
import type { SquareMatrix } from "../matrix/square_matrix.ts";
import { uploadUniforms } from "../gpu/uniforms.ts";

/**
 * Submits what adds the sum over tokens of x xᵀ to the upper triangle of a matrix. With matrix units it is that of x
 * rounded to f16.
 *
 * @param x f32 [tokens, gram.size]
 */
export async function addGram(gpu: Gpu, tokens: number, x: GPUBuffer, { size, slabs }: SquareMatrix): Promise<void> {
  const ranges = slabs.map(({ firstRow, rows }) => ({ m: rows, n: size, k: tokens, aFirst: firstRow, cRow: firstRow }));
  using scope = createBufferScope(gpu);
  const words = await uploadUniforms(gpu, scope, ranges.map(updateWords));
  const a = { buffer: x, stride: size };
  const { matrixUnits: byMatrices } = gpu.profile;
  const updates = slabs.map(({ buffer }, i) => {
    const c = { buffer, stride: size };
    return outerUpdate(gpu, { range: ranges[i], words: words[i], a, b: a, c, triangle: "upper", byMatrices });
  });
  gpu.submit(await Promise.all(updates));
}
