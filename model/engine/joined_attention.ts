/**
 * Attention of windows of text that lie side by side: each attends to itself, everything else takes them as one text.
 *
 * @module
 */
import type { KeyValueCache } from "../../kernels/attention/key_value_cache.ts";
import { prefillAttention } from "../../kernels/attention/prefill_attention.ts";
import { ropeCache } from "../../kernels/attention/rope_cache.ts";
import type { Dispatch, Gpu } from "../../kernels/gpu/gpu.ts";
import type { Plane } from "../../kernels/gpu/plane.ts";
import type { TokenRange } from "../../kernels/tokens/token_range.ts";
import type { ModelConfig } from "../llama/config.ts";
import type { LayerVectors } from "./engine_weights.ts";
import { attentionExtras, attentionShape, type PassBuffers } from "./layer_operations.ts";

/** Windows of equal length side by side. */
export interface JoinedWindows {
  /** How many; where there are several, each begins where bindings may. */
  readonly count: number;
  /** The tokens of one. */
  readonly windowRange: TokenRange;
}

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

/** Dispatches that make `mixed` from `qkv`. */
export async function joinedAttention(
  gpu: Gpu,
  config: ModelConfig,
  layer: LayerVectors,
  { count, windowRange }: JoinedWindows,
  { qkv, mixed, cache, rotations }: JoinedAttentionBuffers,
): Promise<Dispatch[]> {
  const { heads, keyValueHeads, headSize } = config;
  const shape = attentionShape(config);
  const sequenceOf = (plane: Plane, window: number): Plane => {
    const size = 2 * keyValueHeads * headSize * cache.capacity;
    return { ...plane, offset: window * size, size };
  };
  const dispatches: Dispatch[] = [];
  for (let window = 0; window < count; window++) {
    const own = {
      qkv: windowOf(qkv, windowRange, window, (heads + 2 * keyValueHeads) * headSize),
      cache: { ...cache, keys: sequenceOf(cache.keys, window), values: sequenceOf(cache.values, window) },
    };
    const out = windowOf(mixed, windowRange, window, heads * headSize);
    dispatches.push(
      await ropeCache(gpu, shape, windowRange, { ...own, rotations, ...attentionExtras(config, layer) }),
      await prefillAttention(gpu, shape, windowRange, { ...own, out }),
    );
  }
  return dispatches;
}
