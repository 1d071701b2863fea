// Launcher of the kernel between the qkv product and attention.
import type { Dispatch, Gpu } from "../gpu/gpu.ts";
import { type AttentionShape, cacheRowsPart, checkAttentionShape } from "./key_value_cache.ts";
import type { TokenRange } from "../tokens/token_range.ts";
import { joinShader } from "../gpu/shader.ts";
import type { DecodeAttentionBuffers } from "./decode_attention.ts";
import * as wgsl from "./wgsl.ts";

/** Buffers of {@linkcode ropeCache}; width = (heads + 2 keyValueHeads) * headSize. */
export interface RopeCache extends Pick<DecodeAttentionBuffers, "rotations" | "cache" | "bias" | "headNorm"> {
  /** f32 [tokens, width]: q, then k, then v; q is replaced by what attention needs. */
  readonly qkv: GPUBuffer | GPUBufferBinding;
}

/**
 * Dispatch that rotates q and k by their positions and puts k and v into the cache. The range's positions must lie
 * below the cache's capacity.
 */
export async function ropeCache(
  gpu: Gpu,
  shape: AttentionShape,
  range: TokenRange,
  buffers: RopeCache,
): Promise<Dispatch> {
  checkAttentionShape(shape);
  const { heads, keyValueHeads, headSize } = shape;
  const { qkv, rotations, bias, headNorm, cache } = buffers;
  // Bindings that the kernel doesn't read must hold something all the same.
  const unused = rotations;
  return await gpu.makeDispatch(joinShader(wgsl, "rope_cache", cacheRowsPart(cache)), {
    constants: {
      heads,
      key_value_heads: keyValueHeads,
      head_size: headSize,
      capacity: cache.capacity,
      has_bias: bias ? 1 : 0,
      has_norm: headNorm ? 1 : 0,
      epsilon: headNorm?.epsilon ?? 0,
      workgroup_size: headSize / 4,
    },
    buffers: {
      range: range.buffer,
      qkv,
      rotations,
      bias: bias ?? unused,
      head_norms: headNorm?.weights ?? unused,
      keys: cache.keys,
      values: cache.values,
    },
    workgroups: [heads + 2 * keyValueHeads, 1, range.maxTokens],
  });
}
