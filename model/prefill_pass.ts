/**
 * The dispatches that take many tokens through all layers at once: prompts, and text to score.
 *
 * @module
 */
import { embedTokens } from "../kernels/embed_tokens.ts";
import type { Dispatch, Gpu } from "../kernels/gpu.ts";
import { gemm } from "../kernels/linear.ts";
import { prefillAttention } from "../kernels/prefill_attention.ts";
import type { PrefillRange } from "../kernels/prefill_range.ts";
import { rmsNorm } from "../kernels/rms_norm.ts";
import { ropeCache } from "../kernels/rope_cache.ts";
import { siluProduct } from "../kernels/silu_product.ts";
import type { KeyValueCache } from "../kernels/decode_attention.ts";
import { attentionSizes } from "./decode_step.ts";
import type { EngineLayer, EngineWeights, JoinedLinear } from "./engine_weights.ts";

/** Buffers that a prefill pass works in, for T tokens at most. */
export interface PrefillBuffers {
  /** u32 [T]: the tokens. */
  readonly input: GPUBuffer;
  /** f32 [T, hidden]: the residual stream. */
  readonly hidden: GPUBuffer;
  /** f32 [T, hidden]: normed. */
  readonly normed: GPUBuffer;
  /** f32 [T, (heads + 2 keyValueHeads) * headSize]. */
  readonly qkv: GPUBuffer;
  /** f32 [T, heads * headSize]. */
  readonly mixed: GPUBuffer;
  /** f32 [T, 2 * intermediate]. */
  readonly gateUp: GPUBuffer;
  /** f32 [T, intermediate]. */
  readonly inner: GPUBuffer;
}
