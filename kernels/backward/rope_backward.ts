// Launcher of the kernel between the gradients of attention and those of the qkv product.
import { type AttentionShape, checkAttentionShape } from "../attention/key_value_cache.ts";
import type { RopeCache } from "../attention/rope_cache.ts";
import type { Dispatch, Gpu } from "../gpu/gpu.ts";
import { joinShader } from "../gpu/shader.ts";
import type { TokenRange } from "../tokens/token_range.ts";
import * as wgsl from "./wgsl.ts";

/** Buffers of {@linkcode ropeBackward}; width = (heads + 2 keyValueHeads) * headSize. */
export interface RopeBackward extends Pick<RopeCache, "rotations" | "bias" | "headNorm"> {
  /** f32 [tokens, width]: the qkv product before `ropeCache`; read only where heads have norms. */
  readonly before: GPUBuffer;
  /** f32 [tokens, width]: gradients of rotated q, rotated k and v, replaced by those of the product. */
  readonly gradient: GPUBuffer;
}

/**
 * Dispatch that takes gradients back through what `ropeCache` does. Norms of heads keep their weights: those get no
 * gradient.
 *
 * @param windowTokens tokens of a window, each of which begins at position 0
 */
export async function ropeBackward(
  gpu: Gpu,
  shape: AttentionShape,
  range: TokenRange,
  windowTokens: number,
  { rotations, bias, headNorm, before, gradient }: RopeBackward,
): Promise<Dispatch> {
  checkAttentionShape(shape);
  const { heads, keyValueHeads, headSize } = shape;
  return await gpu.makeDispatch(joinShader(wgsl, "rope_backward"), {
    constants: {
      heads,
      key_value_heads: keyValueHeads,
      head_size: headSize,
      window_tokens: windowTokens,
      has_bias: bias ? 1 : 0,
      has_norm: headNorm ? 1 : 0,
      epsilon: headNorm?.epsilon ?? 0,
      workgroup_size: headSize / 2,
    },
    // Bindings that the kernel doesn't read must hold something all the same.
    buffers: {
      range: range.buffer,
      rotations,
      before,
      bias: bias ?? rotations,
      head_norms: headNorm?.weights ?? rotations,
      gradient,
    },
    workgroups: [heads + keyValueHeads, 1, range.maxTokens],
  });
}
