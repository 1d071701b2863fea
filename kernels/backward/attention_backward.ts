// Launcher of the kernels that make the gradients of attention.
import {
  attentionConstants,
  type AttentionShape,
  checkAttentionShape,
  type KeyValueCache,
} from "../attention/key_value_cache.ts";
import type { Dispatch, Gpu, NamedBuffers } from "../gpu/gpu.ts";
import { joinShader } from "../gpu/shader.ts";
import type { TokenRange } from "../tokens/token_range.ts";
import * as wgsl from "./wgsl.ts";

const TILE_TOKENS = 32;

/** Elements of a head that a workgroup makes gradients of. */
const PART_ELEMENTS = 64;

/** Buffers of {@linkcode attentionBackward}, for windows of as many tokens as the range has. */
export interface AttentionBackward {
  /** f32 [windows, tokens, (heads + 2 keyValueHeads) * headSize], as `ropeCache` leaves it: q is rotated. */
  readonly qkv: GPUBuffer;
  /** Keys and values of a sequence for each window. */
  readonly cache: KeyValueCache;
  /** f32 [windows, tokens, heads * headSize]: what attention made. */
  readonly out: GPUBuffer;
  /** f32 [windows, tokens, heads * headSize]: its gradient. */
  readonly outGradient: GPUBuffer;
  /** f32 [windows, heads, tokens, 2]: overwritten. */
  readonly statistics: GPUBuffer;
  /** f32 [windows, tokens, (heads + 2 keyValueHeads) * headSize], written: gradients of rotated q, rotated k and v. */
  readonly qkvGradient: NamedBuffers[string];
}

/**
 * Dispatches of causal attention's gradients, each window by itself: out = softmax(q kᵀ / sqrt(headSize)) v. Softmax
 * weights are made again tile by tile.
 *
 * @param range tokens of one window
 */
export async function attentionBackward(
  gpu: Gpu,
  shape: AttentionShape,
  range: TokenRange,
  windows: number,
  { qkv, cache, out, outGradient, statistics, qkvGradient }: AttentionBackward,
): Promise<Dispatch[]> {
  checkAttentionShape(shape);
  const { heads, keyValueHeads, headSize } = shape;
  const constants = attentionConstants(shape, cache);
  const buffers = {
    range: range.buffer,
    qkv,
    keys: cache.keys,
    values: cache.values,
    out_gradient: outGradient,
    statistics,
    qkv_gradient: qkvGradient,
  };
  const tiles = Math.ceil(range.maxTokens / TILE_TOKENS);
  const parts = Math.ceil(headSize / PART_ELEMENTS);
  return [
    await gpu.makeDispatch(joinShader(wgsl, "attention_query_backward"), {
      constants,
      buffers: { ...buffers, out },
      workgroups: [tiles, heads * parts, windows],
    }),
    await gpu.makeDispatch(joinShader(wgsl, "attention_key_backward"), {
      constants,
      buffers,
      workgroups: [tiles, keyValueHeads * parts, windows],
    }),
  ];
}
