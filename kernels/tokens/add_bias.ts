/**
 * Launcher of the kernel that adds a bias, for the few models whose residual layers have one.
 *
 * @module
 */
import type { Dispatch, Gpu } from "../gpu/gpu.ts";
import type { PrefillRange } from "./prefill_range.ts";
import kernelCode from "./add_bias.wgsl" with { type: "text" };
import rangeCode from "./parts/prefill_range.wgsl" with { type: "text" };

/** The whole shader. */
export const ADD_BIAS_CODE: string = [kernelCode, rangeCode].join("\n");

/**
 * Dispatch that computes y += bias.
 *
 * @param width elements of a token
 * @param bias f32 [width]
 * @param y f32 [tokens, width]
 */
export async function addBias(
  gpu: Gpu,
  range: PrefillRange,
  width: number,
  bias: GPUBuffer,
  y: GPUBuffer | GPUBufferBinding,
): Promise<Dispatch> {
  const kernel = await gpu.createKernel("add_bias", ADD_BIAS_CODE, { width });
  const bindings = gpu.bind(kernel, [range.buffer, bias, y]);
  return { kernel, bindings, workgroups: [Math.ceil(width / 256), range.maxTokens, 1] };
}
