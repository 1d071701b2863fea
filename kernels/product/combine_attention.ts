/**
 * Attention over a sequence that was split, combined into the f16 input of {@linkcode f16Gemv}.
 *
 * @module
 */
import { attentionConstants, type AttentionInput } from "./gemv_modes.ts";
import type { Dispatch, Gpu } from "../gpu/gpu.ts";
import kernelCode from "./combine_attention.wgsl" with { type: "text" };
import attentionValuesCode from "./parts/attention_values.wgsl" with { type: "text" };
import combineSplitsCode from "./parts/combine_splits.wgsl" with { type: "text" };

const THREADS = 256;
/** Channels of a thread. */
const QUAD = 4;

/** The whole shader. */
export const COMBINE_ATTENTION_CODE: string = [kernelCode, attentionValuesCode, combineSplitsCode].join("\n");

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
  const kernel = await gpu.createKernel("combine_attention", COMBINE_ATTENTION_CODE, {
    ...attentionConstants(input, channels),
    channels,
    workgroup_size: THREADS,
  });
  const bindings = gpu.bind(kernel, [input.partials, combined]);
  return { kernel, bindings, workgroups: [Math.ceil(channels / QUAD / THREADS), tokens, 1] };
}
