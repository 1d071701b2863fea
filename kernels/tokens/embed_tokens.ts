// Launcher of the embedding kernel.
import { CHUNK_CHANNELS, type F16Matrix } from "../matrix/f16_matrix.ts";
import type { Dispatch, Gpu } from "../gpu/gpu.ts";
import type { TokenRange } from "./token_range.ts";
import { joinShader } from "../gpu/shader.ts";
import * as wgsl from "./wgsl.ts";

/**
 * Dispatches, one a slab of the embedding, that look up tokens. A token outside the vocabulary leaves its part of y as
 * it was.
 *
 * @param embedding f16 [vocabulary, hidden], as it serves for a tied lm_head too
 * @param tokens u32 [tokens]
 * @param y f32 [tokens, hidden]
 */
export async function embedTokens(
  gpu: Gpu,
  embedding: F16Matrix,
  range: TokenRange,
  tokens: GPUBuffer | GPUBufferBinding,
  y: GPUBuffer | GPUBufferBinding,
): Promise<Dispatch[]> {
  const { channels: hidden, chunks } = embedding;
  return await Promise.all(
    embedding.slabs.map(({ firstRow, rows, weights }) =>
      gpu.makeDispatch(joinShader(wgsl, "embed_tokens"), {
        constants: { rows, first_row: firstRow, row_words: (chunks * CHUNK_CHANNELS) / 2, hidden },
        buffers: { range: range.buffer, tokens, embedding: weights, y },
        workgroups: [Math.ceil(hidden / 512), 1, range.maxTokens],
      })
    ),
  );
}
