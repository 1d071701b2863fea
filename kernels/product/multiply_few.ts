/**
 * Products of a few tokens, between one and as many as a matrix-matrix kernel is made for.
 *
 * @module
 */
import { f16Gemv } from "./f16_gemv.ts";
import { CHUNK_CHANNELS } from "../matrix/f16_matrix.ts";
import { fusedGemv } from "./fused_gemv.ts";
import type { GemmOptions } from "./gemm_tile.ts";
import type { GemvOutput } from "./gemv_modes.ts";
import type { Dispatch, Gpu } from "../gpu/gpu.ts";
import { gemm, isPackedMatrix, type WeightMatrix } from "./linear.ts";
import type { PrefillRange } from "../tokens/prefill_range.ts";

/**
 * Most tokens for which a matrix-vector product for each is faster than a matrix-matrix product for all, by the times in
 * docs/kernel_notes.md ("Where things stand", "Prefill"): decoding is cheap there, and the narrow tile takes as long for 1 token as
 * for 16.
 */
const VECTOR_TOKENS = { packed: 8, f16: 3 } as const;

/**
 * Dispatches of a product for few tokens, by the kernel that is faster for as many as the range may have: y f32
 * [tokens, rows] from x f32 [tokens, channels]. What lies past the range's tokens, up to the most it may have, is
 * overwritten.
 */
export async function multiplyFew(
  gpu: Gpu,
  matrix: WeightMatrix,
  range: PrefillRange,
  x: GPUBuffer,
  y: GPUBuffer,
  { addToY = false }: Pick<GemmOptions, "addToY"> = {},
): Promise<Dispatch[]> {
  const tokens = range.maxTokens;
  const output: GemvOutput = { kind: addToY ? "add" : "store", y: { buffer: y } };
  if (isPackedMatrix(matrix)) {
    if (tokens <= VECTOR_TOKENS.packed) return await fusedGemv(gpu, matrix, { kind: "vector", x }, output, { tokens });
  } else if (tokens <= VECTOR_TOKENS.f16 && matrix.channels % CHUNK_CHANNELS === 0) {
    return await f16Gemv(gpu, matrix, { kind: "vector", x }, output, { tokens });
  }
  return await gemm(gpu, matrix, range, x, y, { addToY });
}
