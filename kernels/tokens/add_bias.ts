// Launcher of the kernel that adds a bias, for the few models whose residual layers have one.
import type { Dispatch, Gpu } from "../gpu/gpu.ts";
import type { TokenRange } from "./token_range.ts";
import { joinShader } from "../gpu/shader.ts";
import * as wgsl from "./wgsl.ts";

/**
 * Dispatch that computes y += bias.
 *
 * @param width elements of a token
 * @param bias f32 [width]
 * @param y f32 [tokens, width]
 */
export async function addBias(
  gpu: Gpu,
  range: TokenRange,
  width: number,
  bias: GPUBuffer,
  y: GPUBuffer | GPUBufferBinding,
): Promise<Dispatch> {
  return await gpu.makeDispatch(joinShader(wgsl, "add_bias"), {
    constants: { width },
    buffers: { range: range.buffer, bias, y },
    workgroups: [Math.ceil(width / 256), 1, range.maxTokens],
  });
}
