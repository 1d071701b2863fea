/**
 * Launcher of the kernel between split attention and a matrix-matrix product.
 *
 * @module
 */
import { attentionConstants, type AttentionInput } from "./gemv_modes.ts";
import type { Dispatch, Gpu } from "../gpu/gpu.ts";
import type { PrefillRange } from "../tokens/prefill_range.ts";
import kernelCode from "./join_splits.wgsl" with { type: "text" };
import attentionValuesCode from "./parts/attention_values.wgsl" with { type: "text" };
import combineSplitsCode from "./parts/combine_splits.wgsl" with { type: "text" };
import rangeCode from "../tokens/parts/prefill_range.wgsl" with { type: "text" };

/** The whole shader. */
export const JOIN_SPLITS_CODE: string = [kernelCode, attentionValuesCode, combineSplitsCode, rangeCode].join("\n");

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
  const kernel = await gpu.createKernel("join_splits", JOIN_SPLITS_CODE, {
    ...attentionConstants(input, channels),
    channels,
  });
  const bindings = gpu.bind(kernel, [range.buffer, input.partials, mixed]);
  return { kernel, bindings, workgroups: [Math.ceil(channels / 4 / 256), range.maxTokens, 1] };
}
