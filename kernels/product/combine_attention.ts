/**
 * Attention over a sequence that was split, combined into the f16 input of {@linkcode f16Gemv}.
 *
 * @module
 */
import { attentionConstants, type AttentionInput } from "./gemv_modes.ts";
import type { Dispatch, Gpu } from "../gpu/gpu.ts";
import { joinShader } from "../gpu/shader.ts";
import * as wgsl from "./wgsl.ts";

const THREADS = 256;
/** Channels of a thread. */
const QUAD = 4;

/**
 * Dispatch that combines attention and rounds it to f16.
 *
 * @param combined f16 [tokens, channels]
 */
export async function combineAttention(
  gpu: Gpu,
  channels: number,
  input: AttentionInput,
  combined: GPUBuffer,
  tokens = 1,
): Promise<Dispatch> {
  return await gpu.makeDispatch(joinShader(wgsl, "combine_attention"), {
    constants: { ...attentionConstants(input, channels), channels, workgroup_size: THREADS },
    buffers: { values: input.partials, combined },
    workgroups: [Math.ceil(channels / QUAD / THREADS), 1, tokens],
  });
}
