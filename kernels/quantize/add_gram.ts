/**
 * Adding to a Hessian.
 *
 * @module
 */
import type { Gpu } from "../gpu/gpu.ts";
import { outerUpdate, updateWords } from "./outer_update.ts";
import type { SquareMatrix } from "../matrix/square_matrix.ts";
import { uploadUniforms } from "../gpu/uniforms.ts";

/**
 * Submits what adds the sum over tokens of x xᵀ to the upper triangle of a matrix.
 *
 * @param x f32 [tokens, gram.size]
 */
export async function addGram(gpu: Gpu, tokens: number, x: GPUBuffer, { size, slabs }: SquareMatrix): Promise<void> {
  const ranges = slabs.map(({ firstRow, rows }) => ({ m: rows, n: size, k: tokens, aFirst: firstRow, cRow: firstRow }));
  const words = await uploadUniforms(gpu, ranges.map(updateWords));
  const inputs = { buffer: x, stride: size };
  const updates = slabs.map(({ buffer }, i) =>
    outerUpdate(gpu, {
      range: ranges[i],
      words: words.bindings[i],
      a: inputs,
      b: inputs,
      c: { buffer, stride: size },
      triangle: "upper",
    })
  );
  gpu.submit(await Promise.all(updates));
  gpu.destroyBuffer(words.buffer);
}
