/**
 * Attention of windows of text that lie side by side: each attends to itself, everything else takes them as one text.
 *
 * @module
 */
import type { KeyValueCache } from "../../kernels/attention/key_value_cache.ts";
import { prefillAttention } from "../../kernels/attention/prefill_attention.ts";
import { ropeCache } from "../../kernels/attention/rope_cache.ts";
import type { Dispatch, Gpu } from "../../kernels/gpu/gpu.ts";
import type { TokenRange } from "../../kernels/tokens/token_range.ts";
import type { ModelConfig } from "../llama/config.ts";
import type { LayerVectors } from "./engine_weights.ts";
import { attentionExtras, attentionShape, type PassBuffers } from "./layer_operations.ts";

/** What their attention goes from and to, beside `qkv` and `mixed`. */
export interface JoinedAttentionBuffers extends Pick<PassBuffers, "qkv" | "mixed"> {
  /** Keys and values, a sequence for each window. */
  readonly cache: KeyValueCache;
  /** f32 [positions, headSize / 2, 2]. */
  readonly rotations: GPUBuffer;
}

/** The part of a buffer f32 [windows, tokens, width] that belongs to a window. */
export function windowOf(
  buffer: GPUBuffer,
  { maxTokens }: TokenRange,
  window: number,
  width: number,
): Required<GPUBufferBinding> {
  const size = 4 * maxTokens * width;
  return { buffer, offset: window * size, size };
}

/**
 * Dispatches that make `mixed` from `qkv`.
 *
 * @param range of all windows, as the sequences that it has
 */
export async function joinedAttention(
  gpu: Gpu,
  config: ModelConfig,
  layer: LayerVectors,
  range: TokenRange,
  { qkv, mixed: out, cache, rotations }: JoinedAttentionBuffers,
): Promise<Dispatch[]> {
  const shape = attentionShape(config);
  return [
    await ropeCache(gpu, shape, range, { qkv, rotations, cache, ...attentionExtras(config, layer) }),
    await prefillAttention(gpu, shape, range, { qkv, cache, out }),
  ];
}
