// Launchers of the kernel between split attention and a product that doesn't combine its input itself. Its CPU
// reference is `inputOnCpu`.
import type { Dispatch, Gpu } from "../gpu/gpu.ts";
import { joinShader } from "../gpu/shader.ts";
import type { TokenRange } from "../tokens/token_range.ts";
import { attentionConstants, type AttentionInput } from "./prologue_epilogue.ts";
import * as wgsl from "./wgsl.ts";

/**
 * Dispatch that combines the partial results of `decodeAttention` for a matrix-matrix product.
 *
 * @param channels heads * headSize
 * @param mixed f32 [tokens, channels]
 */
export function reduceSplits(
  gpu: Gpu,
  { maxTokens }: TokenRange,
  channels: number,
  input: AttentionInput,
  mixed: GPUBuffer | GPUBufferBinding,
): Promise<Dispatch> {
  return gpu.makeDispatch(joinShader(wgsl, "split_reduce", "float_fours"), joined(channels, input, mixed, maxTokens));
}

/** The same for {@linkcode f16Gemv}. @param combined f16 [tokens, channels] */
export function reduceSplitsToF16(
  gpu: Gpu,
  channels: number,
  input: AttentionInput,
  combined: GPUBuffer,
  tokens = 1,
): Promise<Dispatch> {
  return gpu.makeDispatch(joinShader(wgsl, "split_reduce", "half_fours"), joined(channels, input, combined, tokens));
}

function joined(channels: number, input: AttentionInput, mixed: GPUBuffer | GPUBufferBinding, tokens: number) {
  return {
    constants: { ...attentionConstants(input, channels), channels },
    buffers: { values: input.partials, mixed },
    workgroups: [Math.ceil(channels / 4 / 256), 1, tokens],
  } as const;
}
