/**
 * Launcher of the kernel between split attention and a matrix-matrix product.
 *
 * @module
 */
import { attentionConstants, type AttentionInput } from "./gemv_modes.ts";
import type { Dispatch, Gpu } from "../gpu/gpu.ts";
import type { PrefillRange } from "../tokens/prefill_range.ts";
import { joinShader } from "../gpu/shader.ts";
import * as wgsl from "./wgsl.ts";

/**
 * Dispatch that combines the partial results of `decodeAttention`, whose CPU twin is `combinePartials`.
 *
 * @param channels heads * headSize
 * @param mixed f32 [tokens, channels]
 */
export async function joinSplits(
  gpu: Gpu,
  range: PrefillRange,
  channels: number,
  input: AttentionInput,
  mixed: GPUBuffer | GPUBufferBinding,
): Promise<Dispatch> {
  return await gpu.makeDispatch(joinShader(wgsl, "join_splits"), {
    constants: { ...attentionConstants(input, channels), channels },
    buffers: { range: range.buffer, values: input.partials, mixed },
    workgroups: [Math.ceil(channels / 4 / 256), 1, range.maxTokens],
  });
}
